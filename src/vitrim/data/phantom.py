"""Seeded phantoms: data sets that are made instead of downloaded, written in the layouts that the readers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from vitrim.config import PhantomConfig
from vitrim.data.phantoms import abdomen
from vitrim.data.phantoms.shapes import Drawing
from vitrim.errors import InputError
from vitrim.files import replacing, write_json

KINDS = {"abdomen": abdomen}


def make_phantom(
    config: PhantomConfig,
    folder: Path,
    layout: str = "decathlon",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a phantom data set into `folder`, which appears whole or not at all, and return it.

    The same configuration gives the same voxels. InputError if there is something at `folder` already, or if the
    kind has fewer structures than asked for.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already: choose a new folder for the phantom")
    kind = KINDS[config.kind]
    names = kind.CLASSES[: config.classes]
    if config.classes is not None and not 1 <= config.classes <= len(kind.CLASSES):
        raise InputError(f"phantom {config.kind} has 1 to {len(kind.CLASSES)} classes, not {config.classes}")
    with replacing(folder) as temporary:
        for number in range(config.cases):
            drawing = kind.draw(np.random.default_rng([config.seed, number]), config.shape)
            drawing.label[drawing.label > len(names)] = 0
            _write_decathlon(drawing, temporary, f"{config.kind}_{number + 1:03d}")
            if progress:
                progress(number + 1, config.cases)
        _describe(temporary, config, names)
    return folder


def _write_decathlon(drawing: Drawing, folder: Path, id: str) -> None:
    affine = np.diag([*drawing.spacing, 1.0])
    for part, array in (("imagesTr", drawing.image.round().astype(np.int16)), ("labelsTr", drawing.label)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), folder / part / f"{id}.nii.gz")


def _describe(folder: Path, config: PhantomConfig, names: tuple[str, ...]) -> None:
    ids = [f"{config.kind}_{number + 1:03d}" for number in range(config.cases)]
    write_json(
        folder / "dataset.json",
        {
            "name": f"phantom {config.kind}",
            "description": f"made by vitrim, seed {config.seed}",
            "modality": {"0": "CT" if config.kind == "abdomen" else "MRI"},
            "labels": {"0": "background", **{str(n + 1): name for n, name in enumerate(names)}},
            "numTraining": config.cases,
            "training": [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in ids],
            "test": [],
        },
    )
