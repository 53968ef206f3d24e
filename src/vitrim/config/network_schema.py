"""The keys of a network's configuration. Pydantic checks each of them on creation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from vitrim.config.names import FULL_DEPTH, DecoderForm, NetworkName, StemForm, ViTSizeName
from vitrim.config.timm_vits import full_depth, spread_taps, timm_vit

PATCH = 16
"""Side of a ViT patch in pixels, for every network (paper, 3.1.1)."""


MOST_PIXELS = 8192
"""Longest side of an image in pixels."""


def _image_size(value: Any) -> Any:
    """Turn 224 into (224, 224). Raises ValueError if a side is no multiple of `PATCH`; timm does not check it."""
    size = (value, value) if isinstance(value, int) else value
    if isinstance(size, (list, tuple)) and any(isinstance(n, int) and (n <= 0 or n % PATCH) for n in size):
        raise ValueError(f"image size {value} is not a multiple of {PATCH}")
    if isinstance(size, (list, tuple)) and any(isinstance(n, int) and n > MOST_PIXELS for n in size):
        raise ValueError(f"image size {value} is above {MOST_PIXELS} pixels")
    return size


_SIDE = {"type": "integer", "multipleOf": PATCH, "minimum": PATCH, "maximum": MOST_PIXELS}

ImageSize = Annotated[
    tuple[int, int],
    BeforeValidator(_image_size),
    WithJsonSchema({"anyOf": [_SIDE, {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}]}),
]
"""Height and width in pixels, each a multiple of 16. One number stands for a square."""


class Strict(BaseModel):
    """Base class of configurations: unknown keys, NaN and infinity are an error, and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class HoldsViT(Strict):
    """What a configuration says of the ViT: one of vitrim's sizes, or one of timm's models."""

    size: ViTSizeName | None = "base"
    """Size of the ViT; none with `vit`."""
    vit: str | None = None
    """timm's name of a ViT, in place of `size`, for example `vit_base_patch14_dinov2.lvd142m`. The network holds timm's
    own module; its weights are random unless `pretrained` is set."""

    @model_validator(mode="before")
    @classmethod
    def _size_or_vit(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("size") is None:
            values = {name: value for name, value in values.items() if name != "size"}
            if values.get("vit") is not None:
                values["size"] = None
        return values

    @field_validator("vit")
    @classmethod
    def _is_a_vit(cls, name: str | None) -> str | None:
        if name is not None:
            timm_vit(name)
        return name

    @model_validator(mode="after")
    def _one_vit(self) -> HoldsViT:
        if self.vit is not None and self.size is not None:
            found = timm_vit(self.vit)
            raise ValueError(
                f"size {self.size} and vit {found.name} ({found.depth} blocks, {found.dim} wide) are two ViTs; "
                "leave one out"
            )
        return self

    @property
    def full_depth(self) -> int:
        """Number of transformer blocks of the full network."""
        return full_depth(self.vit)


class NetworkConfig(HoldsViT):
    """The complete configuration of a network. A checkpoint stores it and builds the network from it alone."""

    name: NetworkName
    num_classes: int = Field(ge=2)
    """Number of classes, including the background."""
    depth: int = Field(default=FULL_DEPTH, ge=0)
    """Number of transformer blocks; by default all: 12, or those of `vit`."""
    image_size: ImageSize = (224, 224)
    in_chans: int = Field(default=3, ge=1)
    backbone: str = "resnet50"
    """CNN of 2D CATS: the name of a timm model."""
    width: float = Field(default=1.0, gt=0, le=64)
    """Factor on the number of channels of all convolutions."""
    stem: StemForm = "timm"
    """TransUNet: form of the ResNetV2 stem, from timm or from the public TransUNet release."""
    taps: tuple[int, int, int, int] = (3, 6, 9, 12)
    """2D UNETR and 2D CATS: blocks, counted from 1, that feed the scales 1/2, 1/4, 1/8 and 1/16; by default every
    quarter of all blocks. At a smaller depth, the first tap at or beyond this depth moves to it, and later taps are
    removed."""
    decoder: DecoderForm = "paper"
    """2D UNETR and 2D CATS: `paper` removes the scales of the decoder whose tap is gone; `whole` keeps all scales, fed
    by the last block that is kept."""
    pretrained: bool | str = False
    """ImageNet weights: true loads them from timm's hub; a path loads a local file."""

    @model_validator(mode="before")
    @classmethod
    def _blocks_of_the_vit(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        vit = values.get("vit")
        try:
            full = full_depth(vit if isinstance(vit, str) else None)
        except ValueError:  # the check of `vit` itself says why
            full = FULL_DEPTH
        own = {"depth": full, "taps": spread_taps(full)}
        return {**values, **{name: default for name, default in own.items() if values.get(name) is None}}

    @model_validator(mode="after")
    def _blocks_exist(self) -> NetworkConfig:
        if self.depth > self.full_depth:
            raise ValueError(f"depth {self.depth}: {self.vit or 'the full network'} has {self.full_depth} blocks")
        return self

    @model_validator(mode="after")
    def _taps_feed_all(self) -> NetworkConfig:
        first, second, third, last = self.taps
        if not 1 <= first < second < third < last:
            raise ValueError(f"taps {self.taps} are not increasing block numbers, counted from 1")
        if last < self.depth:
            raise ValueError(f"taps {self.taps} leave block {last + 1} and later ones unused; set depth to {last}")
        return self
