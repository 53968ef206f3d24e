"""A DICOM series is read as SimpleITK reads it, or refused where its slices make no volume."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats import SPACING, TURNED, itk_affine, pydicom, sitk, voxels, write_series, write_volume
from vitrim.config.schema import DataConfig
from vitrim.data.cache import content_hash
from vitrim.data.dicom import find_series, is_dicom
from vitrim.data.formats import members, read_voxels
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, InputError


@pytest.mark.parametrize("turned", TURNED)
def test_voxels_and_place_are_those_of_simpleitk(turned: str, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", voxels(), TURNED[turned])
    found = read_voxels(folder)
    assert np.array_equal(found.array, voxels())
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    np.testing.assert_allclose(found.affine, itk_affine(sitk.ReadImage(files)), atol=1e-4)
    same = read_voxels(write_volume(tmp_path / "a.nii.gz", voxels(), TURNED[turned]))
    np.testing.assert_allclose(found.affine, same.affine, atol=1e-4)


def test_each_slice_has_its_own_scale(tmp_path: Path) -> None:
    folder = write_series(
        tmp_path / "pet", voxels(), RescaleSlope=lambda n: 1 + n / 4, RescaleIntercept=lambda n: 0 if n == 0 else 0.5
    )
    slopes, offsets = 1 + np.arange(5) / 4, np.array([0, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(read_voxels(folder).array, voxels() * slopes + offsets, rtol=1e-6)


def test_compressed_slices_are_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", voxels())
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        file.compress(pydicom.uid.RLELossless)
        file.save_as(path)
    assert np.array_equal(read_voxels(folder).array, voxels())


def test_rounding_of_positions_is_no_fault(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.005, 0.005, (5, 3))
    folder = write_series(tmp_path / "scan", voxels(), shift=lambda n: noise[n])
    assert np.array_equal(read_voxels(folder).array, voxels())


def one_changed(folder: Path, change: Callable[[pydicom.Dataset], None], index: int = 2) -> None:
    """Change the header of one slice, counted by its place."""
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        if file.InstanceNumber == index + 1:
            change(file)
            file.save_as(path)


def of(folder: Path, index: int) -> Path:
    return next(path for path in folder.iterdir() if pydicom.dcmread(path).InstanceNumber == index + 1)


NORMAL = TURNED["oblique"][:, 2]
TILT = np.tan(np.radians(12)) * SPACING[2] * TURNED["oblique"][:, 1]

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a slice is missing": (lambda f: of(f, 2).unlink(), "slices are missing, 1 of 5"),
    "two slices are missing": (lambda f: (of(f, 1).unlink(), of(f, 2).unlink()), "slices are missing, 2 of 5"),
    "uneven": (lambda f: write_again(f, shift=lambda n: NORMAL * 0.5 * (n == 3)), "unevenly spaced, 3.5 to 4.5 mm"),
    "slowly uneven": (lambda f: write_again(f, shift=lambda n: NORMAL * 0.1 * n**2), "unevenly spaced"),
    "gantry tilt": (lambda f: write_again(f, shift=lambda n: TILT * n), "gantry tilt of 12.0°"),
    "no line": (lambda f: write_again(f, shift=lambda n: TILT * (n % 2)), "straight line"),
    "two at one place": (lambda f: write_again(f, shift=lambda n: -NORMAL * 4 * (n > 2)), "at one place"),
    "another direction": (
        lambda f: one_changed(f, lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0])),
        "differ in ImageOrientationPatient",
    ),
    "another voxel size": (
        lambda f: one_changed(f, lambda d: setattr(d, "PixelSpacing", [1, 1])),
        "differ in PixelSpacing",
    ),
    "no position": (
        lambda f: one_changed(f, lambda d: delattr(d, "ImagePositionPatient")),
        "has no ImagePositionPatient",
    ),
    "another sign": (
        lambda f: one_changed(f, lambda d: setattr(d, "PixelRepresentation", 0)),
        "differ in PixelRepresentation",
    ),
    "no size": (lambda f: one_changed(f, lambda d: delattr(d, "Rows"), index=4), "should hold an image"),
    "no number": (
        lambda f: of(f, 2).write_bytes(of(f, 2).read_bytes().replace(b"1.5\\1.2", b"1,5\\1.2")),
        "cannot read",
    ),
    "a shifted start": (lambda f: of(f, 4).write_bytes(b"xy" + of(f, 4).read_bytes()), "cannot read"),
    "a class that SimpleITK does not place": (
        lambda f: of(f, 0).write_bytes(b".9.1.2".join(of(f, 0).read_bytes().rsplit(b".1.1.2", 1))),
        "places its slices elsewhere",
    ),
    "frames": (lambda f: write_again(f, NumberOfFrames=3), "holds 3 frames"),
    "colour": (lambda f: write_again(f, SamplesPerPixel=3), "colour"),
    "no slope": (lambda f: write_again(f, RescaleSlope=0), "its RescaleSlope is"),
    "no direction": (lambda f: write_again(f, ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "ImageOrientationPatient"),
    "truncated voxels": (lambda f: of(f, 2).write_bytes(of(f, 2).read_bytes()[:-300]), "cannot read"),
    "truncated header": (lambda f: of(f, 2).write_bytes(of(f, 2).read_bytes()[:300]), "scan"),
    "a text file": (lambda f: (f / "a.dcm").write_text("not DICOM\n" * 40), "a.dcm"),
    "another series": (lambda f: write_again(f, keep=True), "holds 2 DICOM series"),
    "only text": (lambda f: (shutil.rmtree(f), f.mkdir(), (f / "a.txt").write_text("")), "holds no DICOM series"),
}


def write_again(folder: Path, keep: bool = False, **changes: object) -> None:
    if keep:
        other = write_series(folder / "other", voxels(1))
        for path in other.iterdir():
            path.rename(folder / f"{path.name}.dcm")
        return
    shutil.rmtree(folder)
    write_series(folder, voxels(), **changes)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_volume_is_refused_in_one_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage, word = BAD[name]
    folder = write_series(tmp_path / "scan", voxels())
    damage(folder)
    with pytest.raises(DataError, match=re.escape(word)) as error:
        read_voxels(folder)
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_series_is_told_by_its_content_not_by_its_names(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", voxels())
    (folder / "notes").write_text("seen by a friend" * 20)
    assert not is_dicom(folder / "notes")
    report = pydicom.dcmread(of(folder, 0))
    report.SOPClassUID = pydicom.uid.BasicTextSRStorage
    for tag in ("Rows", "Columns", "PixelData"):
        delattr(report, tag)
    report.save_as(folder / "REPORT")
    found = find_series(path for path in folder.iterdir() if is_dicom(path))
    assert [one.about for one in found.series] == ['CT, "thin", 5 files']
    assert found.without_image == (folder / "REPORT",)
    assert np.array_equal(read_voxels(folder).array, voxels())
    other = write_series(tmp_path / "two", voxels(1), SeriesNumber=4)
    for path in other.iterdir():
        path.rename(folder / f"{path.name}.dcm")
    for path in (of(folder, 3), folder / "IM0007.dcm"):  # a file stands for its series
        expected = voxels(1) if path.suffix else voxels()
        assert np.array_equal(read_voxels(path).array, expected)


def test_every_slice_counts_for_the_content_of_a_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", voxels())
    assert len(members(folder)) == 5
    before = content_hash(folder)
    one_changed(folder, lambda file: setattr(file, "RescaleIntercept", -1), index=4)
    assert content_hash(folder) != before


def test_folders_of_series_are_the_images_of_a_data_set(tmp_path: Path) -> None:
    for n in range(2):
        write_series(tmp_path / f"imagesTr/case_{n}", voxels(n))
        write_volume(tmp_path / f"labelsTr/case_{n}.nii.gz", (voxels(n) > 100).astype(np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
    case_set = read_cases(DataConfig(image_size=32), tmp_path)
    assert case_set.ids == ("case_0", "case_1")
    assert case_set.unused == ()
    volume = load_volume(case_set.case("case_1"), case_set)
    assert np.array_equal(volume.image[0], voxels(1))
    assert np.array_equal(volume.label, voxels(1) > 100)


@pytest.mark.parametrize("library", ["pydicom", "SimpleITK"])
def test_without_a_library_the_error_says_how_to_install_it(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_series(tmp_path / "scan", voxels())
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=re.escape(f"needs {library}: pip install 'vitrim[formats]'")):
        read_voxels(folder)
