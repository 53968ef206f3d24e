"""Small trained-looking checkpoints, and NIfTI files to predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import vitrim
from vitrim.config import DataConfig

CLASSES = {0: "background", 1: "bright", 2: "dark"}


def write_checkpoint(folder: Path, name: str = "unetr2d", **settings: object) -> Path:
    """A small network whose labels depend on the image, and the preparation that goes with it."""
    data = settings.pop("data", {})
    torch.manual_seed(int(settings.pop("seed", 0)))  # type: ignore[call-overload]
    shape = {"num_classes": 3, "image_size": 32, "size": "micro", "width": 0.125, "depth": 1, "in_chans": 1}
    network = vitrim.create_model(name, **{**shape, **settings}).eval()  # type: ignore[arg-type]
    with torch.no_grad():  # no class may win everywhere
        logits = network(torch.randn(4, network.config.in_chans, 32, 32))
        network.get_parameter("head.bias").sub_(logits.mean((0, 2, 3)))
    vitrim.save_model(network, folder)
    config = DataConfig.model_validate({"image_size": 32, **data})  # type: ignore[dict-item]
    preparation = {"data": config.model_dump(mode="json"), "classes": {str(n): c for n, c in CLASSES.items()}}
    (folder / "preparation.json").write_text(json.dumps(preparation))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one channel; read only."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "network")


AFFINE = np.array([[0.0, -1.5, 0.1, 20], [1.2, 0.1, 0, -30], [0, 0.2, -4.0, 7], [0, 0, 0, 1]])
"""Oblique, axes swapped, one flipped: every mistake of orientation shows."""


def write_image(
    path: Path,
    shape: tuple[int, ...] = (20, 24, 5),
    seed: int = 0,
    change: Callable[[nib.Nifti1Image], None] | None = None,
    affine: np.ndarray = AFFINE,
) -> Path:
    """A smooth random image of that shape, int16, under an affine that is nobody's default."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 300, tuple(-(-n // 4) if n > 3 else n for n in shape))
    array = coarse
    for axis, n in enumerate(shape):
        array = array.repeat(4, axis=axis).take(range(n), axis=axis) if n > 3 else array
    image = nib.Nifti1Image(array.astype(np.int16), affine)
    if change:
        change(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path
