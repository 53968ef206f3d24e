"""What tests of several rooms share: a tiny data set in the decathlon layout, and a tiny study on it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the real data sets are not on this machine")
    return folder


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
            nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.5, -1.5, 5, 1])), path)
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


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """Eight small cases with two classes."""
    return write_tiny_data(tmp_path / "data")


@pytest.fixture(scope="session")
def tiny_data_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made once; read only."""
    return write_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


def tiny_study(path: Path, **changes: object) -> Path:
    """Write a study that trains for a few steps at 64 x 64."""
    content = {
        "name": "tiny",
        "data": {"image_size": 64, "validation": 3},
        "networks": {"transunet": {"depths": [3]}},
        "size": "micro",
        "width": 0.25,
        "training": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3},
        "attention": {"slices": 2},
        **changes,
    }
    path.write_text(yaml.safe_dump(content))
    return path
