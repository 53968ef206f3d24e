"""What tests of several rooms share: the command line in this process, small data, small studies and checkpoints."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

import vitrim as package
from vitrim.cli import main
from vitrim.config.schema import DataConfig
from vitrim.files import write_json

needs_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN's products of 8-bit integers are for x86"
)


def vitrim(*arguments: object) -> int:
    """Run the command line in this process and return its exit status."""
    argv = sys.argv
    sys.argv = ["vitrim", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = argv
    return 0


def write_tiny_data(folder: Path, cases: int = 8, size: int = 64, slices: int = 4) -> Path:
    """Write `cases` volumes (size, size, slices) with a bright square (label 1) and a dark one (label 2)."""
    rng = np.random.default_rng(0)
    entries = []
    for number in range(cases):
        label = np.zeros((size, size, slices), np.uint8)
        x, y = rng.integers(4, size // 2 - 18, size=2)
        label[x : x + 18, y : y + 18] = 1
        label[x + size // 2 : x + size // 2 + 14, y : y + 20] = 2
        image = np.array([0.0, 200.0, -200.0])[label] + rng.normal(0, 30, label.shape)
        for kind, array in (("imagesTr", image.astype(np.int16)), ("labelsTr", label)):
            path = folder / kind / f"case_{number:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([-1.5, -1.5, 5, 1])), path)
        name = f"case_{number:03d}.nii.gz"
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "tiny",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "bright", "2": "dark"},
        "numTraining": cases,
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


SHORT = {
    "training": {"steps": 2, "batch_size": 4},
    "attention": {"cases": 2, "slices": 1, "maps": [1], "forms": ["identity"]},
}
"""Settings of a tiny study whose trainings and attention need only be there."""


def tiny_study(path: Path, **changes: object) -> Path:
    """Write a study that trains for a few steps at 64 x 64. Exchange is measured on its two training cases."""
    content = {
        "name": "tiny",
        "data": {"image_size": 64, "validation": 3, "train": 2},
        "networks": {"transunet": {"depths": [3]}},
        "size": "micro",
        "width": 0.125,
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3},
        "attention": {"cases": 2, "slices": 2, "forms": ["identity"]},
        **changes,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def make_checkpoint(folder: Path, seed: int = 0, classes: int = 3, split: dict | None = None, depth: int = 12) -> Path:
    """An untrained network with what a study leaves beside it."""
    torch.manual_seed(seed)
    network = package.create_model(
        "transunet", num_classes=classes, image_size=32, in_chans=1, size="micro", width=0.25, depth=depth
    )
    package.save_model(network, folder)
    names = {0: "background", 1: "bright", 2: "dark", 3: "other"}
    write_json(
        folder / "preparation.json",
        {
            "data": DataConfig(image_size=32).model_dump(mode="json"),
            "classes": {str(n): names[n] for n in range(classes)},
        },
    )
    if split:
        training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
        write_json(folder / "trial.json", {"split": split, "training": training})
    return folder


CLASSES = {0: "background", 1: "bright", 2: "dark"}


def write_checkpoint(folder: Path, name: str = "unetr2d", **settings: object) -> Path:
    """A small network whose labels depend on the image, and the preparation that goes with it."""
    data = settings.pop("data", {})
    torch.manual_seed(int(settings.pop("seed", 0)))  # type: ignore[call-overload]
    shape = {"num_classes": 3, "image_size": 32, "size": "micro", "width": 0.125, "depth": 1, "in_chans": 1}
    network = package.create_model(name, **{**shape, **settings}).eval()  # type: ignore[arg-type]
    with torch.no_grad():  # no class may win everywhere
        logits = network(torch.randn(4, network.config.in_chans, 32, 32))
        network.get_parameter("head.bias").sub_(logits.mean((0, 2, 3)))
    package.save_model(network, folder)
    config = DataConfig.model_validate({"image_size": 32, **data})  # type: ignore[dict-item]
    preparation = {"data": config.model_dump(mode="json"), "classes": {str(n): c for n, c in CLASSES.items()}}
    (folder / "preparation.json").write_text(json.dumps(preparation))
    return folder


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
