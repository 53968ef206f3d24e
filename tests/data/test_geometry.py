"""Every command reads the same voxel size, in millimetres; a header that contradicts itself is named."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vitrim.config.schema import DataConfig
from vitrim.data.check import check_cases
from vitrim.data.geometry import geometry
from vitrim.data.io import read_nifti
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume

SIZES = (1.316, 1.316, 10.0)


def image(sform: np.ndarray, pixdim: tuple[float, ...] = SIZES, unit: str = "mm", code: int = 1) -> nib.Nifti1Image:
    made = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.diag([*pixdim, 1.0]))
    made.set_sform(sform, code)
    made.header["pixdim"][1:4] = pixdim
    made.header.set_xyzt_units(unit)
    return made


def sizes(affine: np.ndarray) -> list[float]:
    return np.linalg.norm(affine[:3, :3], axis=0).tolist()


@pytest.mark.parametrize(
    ("sform", "prefer", "expected", "word"),
    [
        (np.eye(4), None, SIZES, "pixdim was taken, because"),
        (np.eye(4), "sform", (1, 1, 1), "sform was taken, as data.voxel_size says"),
        (np.diag([2.0, 2.0, 5.0, 1.0]), None, (2, 2, 5), "sform was taken, because"),
        (np.diag([2.0, 2.0, 5.0, 1.0]), "pixdim", SIZES, "pixdim was taken, as"),
        (np.diag([1.3161, 1.316, 10.0, 1.0]), None, (1.3161, 1.316, 10.0), ""),
    ],
)
def test_one_size_is_taken_and_the_contradiction_named(
    sform: np.ndarray, prefer: str | None, expected: tuple[float, ...], word: str
) -> None:
    found = geometry(image(sform), prefer)  # type: ignore[arg-type]
    assert sizes(found.affine) == pytest.approx(expected, rel=1e-6)
    assert word in found.doubt
    assert bool(found.doubt) == bool(word)


def test_other_units_become_millimetres() -> None:
    micron = image(np.diag([500.0, 500.0, 2000.0, 1.0]), (500, 500, 2000), "micron")
    assert sizes(geometry(micron).affine) == pytest.approx([0.5, 0.5, 2])
    assert geometry(micron).doubt == ""
    meter = image(np.diag([0.001, 0.001, 0.005, 1.0]), (0.001, 0.001, 0.005), "meter")
    assert sizes(geometry(meter).affine) == pytest.approx([1, 1, 5])


def test_a_grid_of_nanometres_is_read(tmp_path: Path) -> None:
    """Electron microscopy: the determinant of the affine in millimetres is near 0, but the affine is not singular."""
    path = tmp_path / "cells.nii.gz"
    nib.save(image(np.diag([0.005, 0.005, 0.04, 1.0]), (0.005, 0.005, 0.04), "micron"), path)
    assert sizes(read_nifti(path).affine) == pytest.approx([5e-6, 5e-6, 4e-5])


def test_a_study_refuses_such_an_image_until_it_is_told(decathlon: Path) -> None:
    for kind in ("imagesTr", "labelsTr"):
        path = decathlon / kind / "case_1.nii.gz"
        stored = nib.load(path)
        changed = nib.Nifti1Image(np.asanyarray(stored.dataobj), stored.affine)
        changed.set_sform(np.eye(4), 1)
        changed.header["pixdim"][1:4] = SIZES
        nib.save(changed, path)
    config = DataConfig(image_size=32)
    errors = check_cases(read_cases(config, decathlon), config).errors
    assert len(errors) == 1
    assert "case_1.nii.gz: its header gives two voxel sizes, 1 × 1 × 1 mm" in errors[0]
    assert errors[0].endswith("Say which is right: data.voxel_size: sform or pixdim")
    for choice, expected in (("pixdim", SIZES), ("sform", (1, 1, 1))):
        told = DataConfig(image_size=32, voxel_size=choice)  # type: ignore[arg-type]
        case_set = read_cases(told, decathlon)
        assert check_cases(case_set, told).errors == []
        assert load_volume(case_set.case("case_1"), case_set).spacing == pytest.approx(expected, rel=1e-6)
