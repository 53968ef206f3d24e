"""Small data sets for the tests of `vitrim.data`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def write() -> Callable[..., Path]:
    """A function that writes an array as NIfTI and creates its folders."""
    return save


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    """Three cases of 12×10×6 voxels with two classes, in the Decathlon's layout."""
    folder = tmp_path / "set"
    rng = np.random.default_rng(0)
    entries = []
    for number in range(3):
        label = np.zeros((12, 10, 6), np.uint8)
        label[2:6, 2:6, 1:4] = 1
        label[7:10, 5:9, 2 : 3 + number] = 2
        image = (rng.normal(100, 5, label.shape) + 30 * label).astype(np.int16)
        save(folder / "imagesTr" / f"case_{number}.nii.gz", image, np.diag([1.0, 2.0, 3.0, 1.0]))
        save(folder / "labelsTr" / f"case_{number}.nii.gz", label, np.diag([1.0, 2.0, 3.0, 1.0]))
        entries.append({"image": f"./imagesTr/case_{number}.nii.gz", "label": f"./labelsTr/case_{number}.nii.gz"})
    description = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "left", "2": "right"},
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder
