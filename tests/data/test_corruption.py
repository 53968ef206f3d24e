"""A damaged image file is refused, or its voxels are what was written: nothing between."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vitrim.data.file_checks import PADDING
from vitrim.data.io import read_nifti
from vitrim.errors import DataError


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, (12, 10, 6)).astype(np.int16)


def stored(voxels: np.ndarray, path: Path, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(voxels, np.diag([1.0, 1.5, 3.0, 1.0])), path)
    return path


def test_no_flipped_bit_changes_a_voxel(voxels: np.ndarray, tmp_path: Path) -> None:
    whole = stored(voxels, tmp_path / "whole.nii.gz").read_bytes()
    rng, messages = np.random.default_rng(1), []
    for number in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{number}.nii.gz"
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_nifti(path).array, voxels)
        except DataError as error:
            messages.append((str(path), str(error)))
    assert len(messages) > 250
    assert all(path in message and "\n" not in message for path, message in messages)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("field", "value"),
    [(("dim", 3), 2), (("dim", 1), 6), (("datatype", None), 2), (("vox_offset", None), 352 + 16)],
)
def test_a_header_that_declares_more_or_less_than_the_file_holds_is_refused(
    field: tuple[str, int | None], value: int, ending: str, voxels: np.ndarray, tmp_path: Path
) -> None:
    content = bytearray(stored(voxels, tmp_path / "whole.nii").read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    name, place = field
    raw = header.structarr.copy()
    if place is None:
        raw[name] = value
    else:
        raw[name][place] = value
    content[:348] = raw.tobytes()
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(gzip.compress(bytes(content)) if ending == ".nii.gz" else bytes(content))
    with pytest.raises(DataError):
        read_nifti(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_may_be_filled_up_with_zeros(ending: str, voxels: np.ndarray, tmp_path: Path) -> None:
    content = stored(voxels, tmp_path / "whole.nii").read_bytes()

    def padded(rest: bytes) -> Path:
        path = tmp_path / f"padded{ending}"
        path.write_bytes(gzip.compress(content + rest) if ending == ".nii.gz" else content + rest)
        return path

    np.testing.assert_array_equal(read_nifti(padded(bytes(PADDING))).array, voxels)
    for rest in (bytes(PADDING + 1), bytes(100) + b"x"):
        with pytest.raises(DataError, match="bytes more than its header declares"):
            read_nifti(padded(rest))


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Image, nib.AnalyzeImage])
def test_other_kinds_are_read_whole_too(kind: type, voxels: np.ndarray, tmp_path: Path) -> None:
    ending = ".nii.gz" if kind is nib.Nifti2Image else ".hdr"
    path = stored(voxels, tmp_path / f"image{ending}", kind)
    np.testing.assert_array_equal(read_nifti(path).array, voxels)
    image = tmp_path / "image.img" if ending == ".hdr" else path
    image.write_bytes(image.read_bytes()[:-40])
    with pytest.raises(DataError):
        read_nifti(path)
