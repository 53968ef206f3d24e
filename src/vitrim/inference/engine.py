"""What computes the logits: a network in torch, or an ONNX file; to the rest they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from vitrim.config.names import Precision
from vitrim.config.reading import checked_name
from vitrim.config.schema import DataConfig
from vitrim.data.recipe import Recipe, class_names
from vitrim.errors import InputError


class Engine(Protocol):
    """Computes logits."""

    identity: str
    """SHA-256 of the weights."""
    precision: str
    """In which it computes."""
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    recipe: Recipe | None
    """How the images have to be prepared, where the checkpoint knows."""

    def __call__(self, images: np.ndarray) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W), float32."""
        ...


def open_engine(checkpoint: Path, precision: str = "auto") -> Engine:
    """The engine for a checkpoint: the folder of a network, or a file that `vitrim export` wrote.

    InputError where it is neither, or is damaged; also if this machine cannot compute in `precision` (a `Precision`).
    """
    checked_name(precision, Precision, "precision")
    if checkpoint.suffix == ".onnx":
        if precision != "auto":
            raise InputError(f"{checkpoint} has a precision of its own; export it again with --int8, or without")
        from vitrim.inference.onnx_engine import OnnxEngine

        return OnnxEngine.open(checkpoint)
    from vitrim.inference.torch_engine import TorchEngine

    return TorchEngine.open(checkpoint, precision)


def recipe_for(engine: Engine, checkpoint: Path, study: DataConfig | None) -> Recipe:
    """How to prepare images for `engine`: as `study` says, else as the checkpoint does.

    InputError where neither says so, or where it does not fit the network.
    """
    recipe = engine.recipe
    if study is not None:
        names = recipe.classes if recipe else class_names(study)
        recipe = Recipe(study, {n: names.get(n, f"class {n}") for n in range(engine.num_classes)})
    if recipe is None:
        raise InputError(
            f"{checkpoint} does not say how its images are prepared (no preparation.json); say it with --study, the "
            f"name of a preset or a file whose data section does"
        )
    if recipe.data.image_size != engine.image_size:
        raise InputError(
            f"{checkpoint} takes images of {engine.image_size}, the study prepares {recipe.data.image_size}"
        )
    if sorted(recipe.classes) != list(range(engine.num_classes)):
        raise InputError(f"{checkpoint} has {engine.num_classes} classes, its preparation names {len(recipe.classes)}")
    return recipe
