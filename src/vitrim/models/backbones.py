"""The CNN of 2D CATS: any timm CNN with features at 1/2, 1/4, 1/8 and 1/16."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import nn

from vitrim.errors import InputError
from vitrim.models.dry_run import run
from vitrim.models.layers import REDUCTIONS, scaled


def create_backbone(
    name: str, in_channels: int, width: float, image_size: tuple[int, int], **settings: Any
) -> tuple[nn.Module, tuple[int, ...]]:
    """Make timm's CNN `name` up to 1/16. Return it and its numbers of channels at 1/2, 1/4, 1/8 and 1/16.

    `width` scales the channels of ResNets and the growth rate of DenseNets. Other CNNs keep their width. The weights
    are random, unless `settings` for `timm.create_model` set them. On the meta device the CNN is built on the CPU, with
    data: some timm CNNs cannot be built without data, and some hold tensors that are not in their state dict.

    Raises InputError if timm has no such CNN, or if it does not give these scales for images of `image_size`.
    """
    indices, channels = _scales(name, in_channels, width, image_size)
    if torch.empty(0).device.type != "meta":
        return _create(name, in_channels, width, indices, **settings), channels
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return _create(name, in_channels, width, indices, **settings), channels


@lru_cache(maxsize=32)
def _scales(
    name: str, in_channels: int, width: float, image_size: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the four scales in timm's list of features, and their channels, found with meta tensors."""
    if not timm.is_model(name):
        raise InputError(f"backbone {name!r} is not a timm model; timm.list_models('*resnet*') lists some")
    try:
        with torch.random.fork_rng(devices=[]):
            reductions = [int(f["reduction"]) for f in timm.create_model(name, features_only=True).feature_info.info]
            missing = [f"1/{reduction}" for reduction in REDUCTIONS if reduction not in reductions]
            if missing:
                raise InputError(f"backbone {name} has no features at {', '.join(missing)}; 2D CATS needs 1/2 to 1/16")
            indices = tuple(reductions.index(reduction) for reduction in REDUCTIONS)
            cnn = _create(name, in_channels, width, indices)
        with torch.no_grad():
            features, _ = run(cnn, torch.empty(1, in_channels, *image_size, device="meta"))
    except InputError:
        raise
    except Exception as error:  # timm CNNs raise different errors for missing features or sizes
        raise InputError(f"backbone {name} does not work with images of {image_size}: {error}") from error
    sizes = [tuple(feature.shape[2:]) for feature in features]
    expected = [(image_size[0] // reduction, image_size[1] // reduction) for reduction in REDUCTIONS]
    if sizes != expected:
        raise InputError(f"backbone {name} gives features of sizes {sizes}; 2D CATS needs {expected}")
    return indices, tuple(feature.shape[1] for feature in features)


def _create(name: str, in_channels: int, width: float, indices: tuple[int, ...], **settings: Any) -> nn.Module:
    if width != 1 and is_model_in_modules(name.split(".")[0], {"resnet"}):
        settings["channels"] = tuple(scaled(channels, width) for channels in (64, 128, 256, 512))
    if width != 1 and is_model_in_modules(name.split(".")[0], {"densenet"}):
        settings["growth_rate"] = scaled(32, width)
    return timm.create_model(name, features_only=True, out_indices=indices, in_chans=in_channels, **settings)
