"""Makes example images for models of other libraries, from the image size that a model states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def example_for(model: nn.Module) -> Tensor:
    """Two images of the shape that `model` states, as a meta tensor.

    If it states none: 224 × 224 pixels, or 96 × 96 × 96 voxels if its first convolution is of volumes.
    """
    return torch.empty(2, *next(_said(model)), device="meta")


def _said(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes (channels, *size) that the model or a part of it states, outermost first, then a guess."""
    for module in model.modules():
        embed = getattr(module, "patch_embed", None)
        if getattr(embed, "img_size", None) is not None:  # timm
            channels = getattr(module, "in_chans", None) or _first_channels(module)
            yield channels, *_pair(embed.img_size)  # type: ignore[union-attr]
        config = getattr(module, "config", None)
        if getattr(config, "image_size", None) and getattr(config, "num_channels", None):  # Hugging Face
            yield config.num_channels, *_pair(config.image_size)  # type: ignore[union-attr]
        if hasattr(module, "feat_size") and hasattr(module, "patch_size"):  # MONAI's UNETR
            size = [n * patch for n, patch in zip(module.feat_size, module.patch_size, strict=True)]  # type: ignore[arg-type]
            yield _first_channels(module), *size
        patches = getattr(module, "patch_embedding", None)
        if hasattr(patches, "n_patches"):  # MONAI's ViT, on square images or cubic volumes
            yield from _monai_vit(patches)
        if hasattr(module, "image_size") and hasattr(module, "conv_proj"):  # torchvision
            yield _first_channels(module), *_pair(module.image_size)
    if isinstance(settings := getattr(model, "default_cfg", None), dict) and settings.get("input_size"):  # timm
        yield tuple(settings["input_size"])
    yield _first_channels(model), *((96, 96, 96) if isinstance(_first_convolution(model), nn.Conv3d) else (224, 224))


def _pair(size: Any) -> Sequence[int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _first_channels(module: nn.Module) -> int:
    """Channels of the first convolution; 3 if there is none."""
    first = _first_convolution(module)
    return 3 if first is None else first.in_channels


def _first_convolution(module: nn.Module) -> nn.Conv2d | nn.Conv3d | None:
    return next((layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d))), None)


def _monai_vit(patches: Any) -> Iterator[tuple[int, ...]]:
    projection = patches.patch_embeddings
    if isinstance(projection, (nn.Conv2d, nn.Conv3d)):
        dimensions = len(projection.kernel_size)
        side = round(int(patches.n_patches) ** (1 / dimensions))
        if side**dimensions == patches.n_patches:
            yield projection.in_channels, *(side * kernel for kernel in projection.kernel_size)
