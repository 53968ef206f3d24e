"""Random changes of training slices, by MONAI's transforms. The seed, the epoch and the slice decide each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import radians
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vitrim.config.names import SpatialTransform
from vitrim.config.training_schema import Augmentation
from vitrim.data.sampling import mixed
from vitrim.errors import ConfigurationError, InputError

DRAW = 11
"""Part of the seed from which the changes of a slice are drawn."""

KEYS = ("image", "label")

PADDING = {
    "RandRotate": "border",
    "RandZoom": "edge",
    "RandAffine": "border",
    "Rand2DElastic": "border",
    "RandGridDistortion": "border",
}
"""The transforms that interpolate, and MONAI's name of repeating the nearest pixel beyond the edge. Image and label do
it alike, so that they agree."""

MEDICAL: Augmentation = [
    {"RandRotate": {"prob": 0.3, "range_x": radians(20)}},
    {"RandZoom": {"prob": 0.3, "min_zoom": 0.8, "max_zoom": 1.25}},
    {"RandGaussianNoise": {"prob": 0.15, "std": 0.1}},
    {"RandGaussianSmooth": {"prob": 0.15, "sigma_x": [0.5, 1.0], "sigma_y": [0.5, 1.0]}},
    {"RandScaleIntensity": {"prob": 0.15, "factors": 0.25}},
    {"RandAdjustContrast": {"prob": 0.3, "gamma": [0.7, 1.5]}},
    {"RandBiasField": {"prob": 0.15, "coeff_range": [0.0, 0.2]}},
    {"RandSimulateLowResolution": {"prob": 0.15, "zoom_range": [0.5, 1.0], "upsample_mode": "bilinear"}},
]
"""`medical`: the kinds of change that nnU-Net makes, without flips, which would exchange left and right."""


class Augmented(Dataset[dict[str, Tensor]]):
    """The items of a data set, changed at random. Item n is item `n % len(data)` in epoch `n // len(data)`.

    The same seed, epoch and item give the same bytes in every process.
    """

    def __init__(self, data: Dataset[Any], augment: Augmentation, seed: int) -> None:
        """Change the items of `data`, {"image": float (C, H, W), "label": (H, W)}. `check_augmentation` comes first."""
        self.data, self.augment, self.seed = data, augment, seed

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, item = divmod(number, len(self))
        sample = self.data[item]
        image, label = sample["image"], sample["label"]
        self._transform.set_random_state(mixed(self.seed, epoch, item, DRAW) % 2**32)
        with _alone():
            changed = self._transform({"image": image, "label": label[None].to(torch.float32)})
        if changed["image"].shape != image.shape:
            raise InputError(
                f"training.augment turns a slice of {image.shape[1]} × {image.shape[2]} into another shape: "
                "quarter turns need square slices"
            )
        label = torch.as_tensor(changed["label"])[0].round().to(label.dtype)
        return {"image": torch.as_tensor(changed["image"]).to(image.dtype).contiguous(), "label": label.contiguous()}

    @cached_property
    def _transform(self) -> Any:
        return make_transform(self.augment)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_transform"}  # made again elsewhere


def check_augmentation(augment: Augmentation) -> None:
    """Raise ConfigurationError if the parameters of a transform are wrong. Every transform is tried once."""
    if isinstance(augment, str):
        return
    sample = {"image": torch.linspace(0, 1, 1024).reshape(1, 32, 32), "label": torch.zeros(1, 32, 32)}
    for place, entry in enumerate(augment):
        for name, parameters in entry.items():
            try:
                with _alone():
                    transform = _made(name, {**parameters, "prob": 1.0})
                    transform.set_random_state(0)
                    transform(dict(sample))
                    _made(name, parameters)
            except Exception as error:  # whatever MONAI and torch raise for a value
                reason = " ".join(str(error).split())[:200]
                raise ConfigurationError(
                    f"training.augment.{place}: {name}: {reason or type(error).__name__}"
                ) from error


def make_transform(augment: Augmentation) -> Any:
    """Return MONAI's transform of {"image": (C, H, W), "label": (1, H, W)} for an augmentation."""
    from monai.transforms import Compose, OneOf

    if augment == "none":
        return Compose([])
    if augment == "light":
        turn_and_flip = Compose([_made("RandRotate90", {"prob": 0.75}), _made("RandAxisFlip", {"prob": 1.0})])
        turn = _made("RandRotate", {"prob": 1.0, "range_x": radians(20)})
        return OneOf([turn_and_flip, turn, Compose([])], weights=(0.5, 0.25, 0.25))
    return Compose([_made(*pair) for entry in _entries(augment) for pair in entry.items()])


def _entries(augment: Augmentation) -> Sequence[dict[Any, dict[str, Any]]]:
    entries = MEDICAL if augment == "medical" else augment
    assert not isinstance(entries, str)
    return entries


def _made(name: str, parameters: dict[str, Any]) -> Any:
    """Return one of MONAI's transforms: of the image alone, or of image and label, which gets the nearest pixel."""
    from monai import transforms

    kind = getattr(transforms, f"{name}d")
    if name not in get_args(SpatialTransform):
        return kind(keys=KEYS[:1], **parameters)
    own: dict[str, Any] = {}
    if name in PADDING:
        own = {"mode": ("bilinear", "nearest"), "padding_mode": PADDING[name]}
    return kind(keys=KEYS, **own, **parameters)


@contextmanager
def _alone() -> Iterator[None]:
    """Compute with plain tensors in one thread, as the processes that read slices do, so that bits do not differ."""
    from monai.data import get_track_meta, set_track_meta

    threads, tracking = torch.get_num_threads(), get_track_meta()
    torch.set_num_threads(1)
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(tracking)
        torch.set_num_threads(threads)
