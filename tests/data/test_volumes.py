"""Errors when the voxels of a case are read."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Volume
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import InputError

Write = Callable[..., Path]
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def first(folder: Path) -> Volume:
    case_set = read_cases(DataConfig(), folder)
    return load_volume(case_set.cases[0], case_set)


def refused(folder: Path, message: str) -> None:
    """Check that the first case raises InputError with a message of one line."""
    with pytest.raises(InputError, match=message) as caught:
        first(folder)
    assert "\n" not in str(caught.value)


def test_image_and_label_of_different_shape_are_refused(decathlon: Path, write: Write) -> None:
    write(decathlon / "labelsTr" / "case_0.nii.gz", np.zeros((12, 10, 5), np.uint8), AFFINE)
    refused(decathlon, r"differ in shape: 12×10×6 in .*, 12×10×5 in .*labelsTr")


def test_image_and_label_at_different_places_are_refused(decathlon: Path, write: Write) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5
    write(decathlon / "labelsTr" / "case_0.nii.gz", np.zeros((12, 10, 6), np.uint8), shifted)
    refused(decathlon, r"differ in affine: .* 0.5 voxels away")


def test_an_affine_that_is_off_by_rounding_is_accepted(decathlon: Path, write: Write) -> None:
    write(decathlon / "labelsTr" / "case_0.nii.gz", np.zeros((12, 10, 6), np.uint8), AFFINE + 1e-3)
    assert first(decathlon).label is not None


def test_a_label_whose_header_knows_no_orientation_takes_that_of_the_image(decathlon: Path) -> None:
    image = nib.Nifti1Image(np.zeros((12, 10, 6), np.uint8), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, decathlon / "labelsTr" / "case_0.nii.gz")
    assert first(decathlon).spacing == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("value", [3, 200, 0.5, -1, np.nan])
def test_a_label_value_that_is_not_named_is_refused(decathlon: Path, write: Write, value: float) -> None:
    label = np.zeros((12, 10, 6), np.float32)
    label[3, 3, 3] = value
    write(decathlon / "labelsTr" / "case_0.nii.gz", label, AFFINE)
    refused(decathlon, rf"label value {value:g} in .*case_0.* known values are 0 background, 1 left, 2 right")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_refused(decathlon: Path, write: Write, value: float) -> None:
    image = np.ones((12, 10, 6), np.float32)
    image[0, 0, 0] = value
    write(decathlon / "imagesTr" / "case_0.nii.gz", image, AFFINE)
    refused(decathlon, r"NaN or infinity in .*case_0")


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_voxel_type_is_read(decathlon: Path, write: Write, kind: type) -> None:
    for part in ("imagesTr", "labelsTr"):
        write(decathlon / part / "case_0.nii.gz", np.ones((12, 10, 6), kind), AFFINE)
    volume = first(decathlon)
    assert volume.image.dtype == np.float32
    assert volume.label is not None
    assert volume.label.dtype == np.uint8


def test_colours_are_refused(decathlon: Path, write: Write) -> None:
    colour = np.zeros((12, 10, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    write(decathlon / "imagesTr" / "case_0.nii.gz", colour, AFFINE)
    refused(decathlon, "expected plain numbers")


def test_a_truncated_gzip_is_refused(decathlon: Path) -> None:
    path = decathlon / "imagesTr" / "case_0.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    refused(decathlon, r"cannot read .*case_0")


@pytest.mark.parametrize(
    "content",
    [b"", b"dear doctor, here are your data", gzip.compress(b"dear doctor" * 100)],
    ids=["nothing", "text", "zipped text"],
)
def test_text_that_calls_itself_an_image_is_refused(decathlon: Path, content: bytes) -> None:
    (decathlon / "imagesTr" / "case_0.nii.gz").write_bytes(content)
    refused(decathlon, r"cannot read .*case_0")


def test_a_header_that_promises_a_trillion_voxels_is_refused_before_memory_is_asked_for(decathlon: Path) -> None:
    path = decathlon / "imagesTr" / "case_0.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:56] = struct.pack("<8h", 3, 10000, 10000, 10000, 1, 1, 1, 1)
    path.write_bytes(gzip.compress(bytes(content)))
    refused(decathlon, r"declares 1e\+12 voxels")


def test_a_symlink_that_points_at_itself_is_no_image(decathlon: Path) -> None:
    path = decathlon / "imagesTr" / "case_0.nii.gz"
    path.unlink()
    path.symlink_to(path)
    refused(decathlon, r"image is missing: .*case_0")


def test_a_value_that_a_scale_factor_left_beside_a_whole_number_is_that_number(decathlon: Path, write: Write) -> None:
    path = decathlon / "labelsTr" / "case_0.nii.gz"
    whole = np.asanyarray(nib.load(path).dataobj).astype(np.float64)
    case_set = read_cases(DataConfig(), decathlon)
    expected = load_volume(case_set.cases[0], case_set).label
    write(path, whole * 0.99999999977, AFFINE)
    np.testing.assert_array_equal(load_volume(case_set.cases[0], case_set).label, expected)
    write(path, whole + 0.002, AFFINE)
    with pytest.raises(InputError, match=r"label value 0\.002 in .* has no class"):
        load_volume(case_set.cases[0], case_set)
