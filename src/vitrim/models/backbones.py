"""The CNN of 2D CATS: any of timm's with features at 1/2, 1/4, 1/8 and 1/16."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vitrim.errors import InputError
from vitrim.models.layers import scaled
from vitrim.models.taps import REDUCTIONS


def create_backbone(name: str, in_channels: int, width: float, **settings: Any) -> tuple[nn.Module, tuple[int, ...]]:
    """Make timm's CNN `name` up to 1/16; give it and its channels at 1/2, 1/4, 1/8 and 1/16.

    `width` scales ResNets and DenseNets; other CNNs keep their own width. It is randomly initialised, unless `settings`
    for `timm.create_model` say otherwise.

    Raises InputError if timm has no such CNN, or it has not these scales.
    """
    if not timm.is_model(name):
        raise InputError(f"timm has no backbone {name!r}: `timm.list_models('resnet*')` lists some")
    try:
        with torch.device("meta"):
            reductions = timm.create_model(name, features_only=True).feature_info.reduction()
    except RuntimeError as error:
        raise InputError(f"backbone {name} gives no features for 2D CATS: {error}") from error
    missing = [f"1/{reduction}" for reduction in REDUCTIONS if reduction not in reductions]
    if missing:
        raise InputError(f"backbone {name} has no features at {', '.join(missing)}; 2D CATS needs 1/2 to 1/16")
    cnn = timm.create_model(
        name,
        features_only=True,
        out_indices=[reductions.index(reduction) for reduction in REDUCTIONS],
        in_chans=in_channels,
        **_narrow(name, width),
        **settings,
    )
    return cnn, tuple(cnn.feature_info.channels())


def _narrow(name: str, width: float) -> dict[str, Any]:
    """Settings with which timm builds a CNN of another width."""
    if width == 1:
        return {}
    if name.startswith("resnet"):
        return {"channels": tuple(scaled(channels, width) for channels in (64, 128, 256, 512))}
    if name.startswith("densenet"):
        return {"growth_rate": scaled(32, width), "num_init_features": scaled(64, width)}
    return {}
