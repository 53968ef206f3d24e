"""Engines compute logits: a network in torch or an ONNX file, with one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from vitrim.config.names import Device, Precision
from vitrim.config.reading import checked_name
from vitrim.config.schema import DataConfig
from vitrim.data.recipe import Recipe
from vitrim.errors import InputError
from vitrim.models.user_models import ModelSource


class Engine(Protocol):
    """Interface of everything that computes logits."""

    identity: str
    """SHA-256 of the weights."""
    precision: str
    """Precision of the computation: one of `Precision` (but not auto), or "as exported"."""
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    device: str
    """cpu or cuda."""
    recipe: Recipe | None
    """How to prepare the images; None if the checkpoint does not say."""

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return the logits (B, K, H, W) of float32 images (B, C, H, W)."""
        ...


def open_engine(
    checkpoint: Path,
    precision: str = "auto",
    model: ModelSource | None = None,
    prepared: DataConfig | None = None,
    device: Device = "auto",
) -> Engine:
    """Open the engine for a checkpoint: one of `open_network`, or an ONNX file that `vitrim export` wrote.

    Raises InputError if the checkpoint is neither or is damaged, or if this machine cannot compute in `precision`
    (one of `Precision`) or has no such `device`.
    """
    checked_name(device, Device, "device")
    checked_name(precision, Precision, "precision")
    if checkpoint.suffix == ".onnx":
        if precision != "auto":
            raise InputError(f"{checkpoint} has a fixed precision; to change it, export again with or without --int8")
        if model is not None:
            raise InputError(f"{checkpoint} holds its network: leave --model out")
        from vitrim.inference.onnx_engine import OnnxEngine

        return OnnxEngine.open(checkpoint, device)
    from vitrim.inference.torch_engine import TorchEngine

    return TorchEngine.open(checkpoint, precision, model, prepared, device)
