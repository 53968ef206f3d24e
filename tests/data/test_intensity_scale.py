"""A header may scale intensities. It is said, and a scale that destroys voxels is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import vitrim as package
from tests.support import vitrim, write_checkpoint, write_tiny_data
from vitrim.data.intensity_scale import PLAIN
from vitrim.data.io import read_nifti
from vitrim.errors import DataError


def scaled_file(path: Path, slope: float, inter: float, kind: type = np.int16) -> Path:
    """An image that stores 0 to 999 and scales them."""
    stored = np.arange(1000).reshape(10, 10, 10).astype(kind)
    raw = nib.Nifti1Image(stored, np.eye(4)).to_bytes()
    path.write_bytes(raw[:112] + np.array([slope, inter], "<f4").tobytes() + raw[120:])
    return path


@pytest.mark.parametrize(("slope", "inter"), [(0.5, -1024), (-2.0, 0), (1e-9, 0), (3e5, 1e6), (1, 1e6)])
def test_a_sound_scale_is_applied_and_returned(tmp_path: Path, slope: float, inter: float) -> None:
    voxels = read_nifti(scaled_file(tmp_path / "image.nii", slope, inter))
    np.testing.assert_allclose(voxels.array.ravel(), np.arange(1000) * np.float64(np.float32(slope)) + inter)
    assert voxels.scale == pytest.approx((slope, inter))
    assert len(np.unique(voxels.array.astype(np.float32))) == 1000


def test_equal_voxels_have_nothing_to_lose(tmp_path: Path) -> None:
    path = scaled_file(tmp_path / "image.nii", 1, 1e6, np.float32)
    raw = path.read_bytes()
    path.write_bytes(raw[:352] + np.full(1000, 0.25, "<f4").tobytes())
    assert read_nifti(path).array.min() == read_nifti(path).array.max() == 1e6 + 0.25


def test_no_scale_is_no_scale(tmp_path: Path) -> None:
    assert read_nifti(scaled_file(tmp_path / "image.nii", 1, 0)).scale == PLAIN
    assert read_nifti(scaled_file(tmp_path / "image.nii", 0, 7)).scale == PLAIN  # NIfTI: a factor of 0 is no scale


@pytest.mark.parametrize(
    ("slope", "inter", "kind"),
    [
        (1e24, 0, np.int16), (1e-24, 0, np.int16), (1, -4e31, np.int16), (1e-3, 1e6, np.int16), (1e30, 1e38, np.int16),
        (1, 1e12, np.float32), (1e36, 0, np.uint8),
    ],
)  # fmt: skip
def test_a_scale_that_destroys_voxels_is_refused(tmp_path: Path, slope: float, inter: float, kind: type) -> None:
    with pytest.raises(DataError, match=r"its header scales voxels by .* repair its header"):
        read_nifti(scaled_file(tmp_path / "image.nii", slope, inter, kind))


def test_predict_says_which_headers_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for number, slope in enumerate((1.0, 1.0, 1.0078125)):
        scaled_file(tmp_path / "images" / f"case_{number}.nii", slope, 0)
    network = write_checkpoint(tmp_path / "network")
    assert vitrim("predict", network, tmp_path / "images", "-o", tmp_path / "out") == 0
    said = "note: headers scale intensities: as stored in 2 images; × 1.00781 in case_2"
    assert said in capsys.readouterr().out


def test_the_check_says_scales_that_differ_and_scaled_labels(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", cases=3, size=48, slices=2)
    image, label = (sorted((data / folder).iterdir())[-1] for folder in ("imagesTr", "labelsTr"))
    for path, slope in ((image, 0.5), (label, 1.0001)):
        stored = nib.load(path)
        whole = nib.Nifti1Image(np.asanyarray(stored.dataobj).astype(np.int16), stored.affine).to_bytes()
        changed = whole[:112] + np.float32(slope).tobytes() + whole[116:]
        path.write_bytes(gzip.compress(changed) if path.suffix == ".gz" else changed)
    warnings = package.check_data("decathlon", data).warnings
    differ = "the headers scale intensities differently: as stored in 2 images; × 0.5 in"
    assert any(differ in line for line in warnings)
    assert any("the header scales its values, × 1.0001" in line for line in warnings)
