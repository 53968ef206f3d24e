"""`vitrim predict`: the same volume gives the same label map in every format, and no volume is left out in silence."""

from __future__ import annotations

import os
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest

from tests.formats import TURNED, itk_affine, itk_image, sitk, voxels, write_series, write_volume
from tests.support import vitrim, write_image

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run it; give its one line."""
    capsys.readouterr()
    assert vitrim(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    return error


@pytest.fixture(scope="module")
def expected(checkpoint, tmp_path_factory) -> np.ndarray:
    """The labels of the volume as NIfTI."""
    folder = tmp_path_factory.mktemp("nifti")
    assert vitrim("predict", checkpoint, write_volume(folder / "a.nii.gz", voxels()), "-o", folder / "out.nii.gz") == 0
    labels = np.asanyarray(nib.load(folder / "out.nii.gz").dataobj)
    assert len(np.unique(labels)) > 1
    return labels


@pytest.mark.parametrize("ending", [*ENDINGS, "/", ".dcm"])
def test_the_label_map_is_the_same_in_every_format_and_comes_back_in_it(ending, checkpoint, expected, tmp_path):
    source = tmp_path / "in"
    if ending in ENDINGS:
        image = write_volume(source / f"a{ending}", voxels())
    else:
        image = write_series(source / "a", voxels())
        for path in image.iterdir() if ending == ".dcm" else ():
            path.rename(path.with_suffix(ending))
    assert (
        vitrim("predict", checkpoint, source, "-o", tmp_path / "out", "--labels", "--probabilities", "--preview") == 0
    )
    written = ending if ending in ENDINGS and ".nii" not in ending else ".nii.gz"
    found = sitk.ReadImage(str(tmp_path / f"out/a{written}"))
    assert found.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(found).transpose(2, 1, 0), expected)
    np.testing.assert_allclose(itk_affine(found), itk_affine(itk_image(voxels())), atol=1e-4)
    assert nib.load(tmp_path / "out/a_probabilities.nii.gz").shape == (*expected.shape, 3)
    np.testing.assert_allclose(nib.load(tmp_path / "out/a_probabilities.nii.gz").affine, itk_affine(found), atol=1e-4)
    rows = (tmp_path / "out/volumes.csv").read_text().splitlines()[1:]
    for row in rows:
        _, label, _, count, ml = row.split(",")
        assert int(count) == (expected == int(label)).sum()
        assert float(ml) == pytest.approx(int(count) * 1.2 * 1.5 * 4 / 1000, abs=1e-3)


@pytest.mark.parametrize("given", [".nii.gz", ".nrrd", "/"])
@pytest.mark.parametrize("ending", [*ENDINGS, ".seg.nrrd", ".hdr"])
def test_the_ending_of_out_says_the_format(ending, given, checkpoint, expected, tmp_path):
    make = write_series if given == "/" else write_volume
    image = make(tmp_path / f"in{given}", voxels())
    out = tmp_path / f"out/labels{ending}"
    assert vitrim("predict", checkpoint, image, "-o", out) == 0
    assert out.is_file()
    found = sitk.ReadImage(str(out))
    assert np.array_equal(sitk.GetArrayFromImage(found).transpose(2, 1, 0), expected)
    np.testing.assert_allclose(itk_affine(found), itk_affine(itk_image(voxels())), atol=1e-4)
    beside = {".nhdr": ["labels.raw"], ".mhd": ["labels.raw"], ".hdr": ["labels.img"]}.get(ending, [])
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([out.name, *beside])


def test_analyze_is_read_and_written(checkpoint, tmp_path):
    for name, kind in (("a", nib.AnalyzeImage), ("b", nib.Nifti1Pair)):
        (tmp_path / "in").mkdir(exist_ok=True)
        image = kind(voxels(), np.diag([-1.5, 1.5, 4, 1]))
        image.to_filename(tmp_path / f"in/{name}.hdr")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--labels") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.hdr", "a.img", "b.hdr", "b.img", "volumes.csv"}
    for name in "ab":
        image, found = (nib.load(tmp_path / folder / f"{name}.hdr") for folder in ("in", "out"))
        assert found.get_data_dtype() == np.uint8
        np.testing.assert_allclose(found.affine, image.affine)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".hdr"])
def test_what_is_there_is_kept_and_nothing_foreign_is_replaced(ending, checkpoint, tmp_path, capsys):
    image = write_volume(tmp_path / "in/a.nrrd", voxels())
    out = tmp_path / f"out/a{ending}"
    assert vitrim("predict", checkpoint, image, "-o", out, "--labels") == 0
    table = (tmp_path / "out/a_volumes.csv").read_text()
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    os.utime(out, (0, 0))
    assert vitrim("predict", checkpoint, image, "-o", out, "--labels") == 0
    assert out.stat().st_mtime == 0
    assert (tmp_path / "out/a_volumes.csv").read_text() == table
    write_volume(image, voxels(1))
    assert f"{out} exists and was made with another image" in refused(capsys, "predict", checkpoint, image, "-o", out)
    assert vitrim("predict", checkpoint, image, "-o", out, "--overwrite") == 0
    write_volume(image, voxels())
    assert vitrim("predict", checkpoint, image, "-o", out, "--overwrite", "--labels") == 0
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before
    for path in out.parent.iterdir():
        path.unlink()
    if ending == ".hdr":
        nib.Nifti1Pair(voxels(), np.eye(4)).to_filename(out)
    else:
        write_volume(out, voxels(2))
    assert f"{out} exists and was made by something else" in refused(capsys, "predict", checkpoint, image, "-o", out)
    if ending in (".mhd", ".hdr"):
        out.unlink()
        assert "is there without" in refused(capsys, "predict", checkpoint, image, "-o", out)


def test_an_image_and_its_file_of_voxels_are_never_replaced(checkpoint, tmp_path, capsys):
    image = write_volume(tmp_path / "a.mhd", voxels())
    for out in (image, tmp_path, tmp_path / "a.nhdr"):
        assert "is an image, and would be replaced" in refused(capsys, "predict", checkpoint, image, "-o", out)


def test_without_the_libraries_nifti_files_are_predicted_all_the_same(checkpoint, tmp_path, capsys, monkeypatch):
    write_volume(tmp_path / "in" / "a.nii.gz", voxels())
    write_volume(tmp_path / "in" / "b.nrrd", voxels())
    write_series(tmp_path / "in" / "scan", voxels())
    for name in ("SimpleITK", "pydicom"):
        monkeypatch.setitem(sys.modules, name, None)
    error = refused(capsys, "predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out")
    assert error.startswith("vitrim: 1 of 2 cases failed: b: reading")
    assert error.endswith("b.nrrd needs SimpleITK: pip install 'vitrim[formats]'")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_in_a_mixed_folder_every_volume_is_predicted_or_named(checkpoint, tmp_path, capsys):
    source = tmp_path / "in"
    for name in ("a.nrrd", "b.mha", "c.mhd", "d.nii.gz", "sub/e.nrrd"):
        write_volume(source / name, voxels())
    write_volume(source / "f.seg.nrrd", (voxels() > 0).astype(np.uint8))
    write_series(source / "scans/one", voxels())
    (source / "g.mgz").write_text("")
    (source / "i.raw").write_text("")
    (source / "h.dcm").write_text("")
    assert vitrim("predict", checkpoint, source, "-o", tmp_path / "out") == 0
    said = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.nrrd", "b.mha", "c.mhd", "c.raw", "d.nii.gz", "scans_one.nii.gz"}
    for name, why in (
        ("sub/e.nrrd", "subfolder"),
        ("f.seg.nrrd", "segmentation"),
        ("i.raw", "voxels without their header"),
        ("g.mgz", "no format that vitrim reads"),
        ("h.dcm", "damaged DICOM"),
    ):
        assert any(name in line and why in line and "not used" in line for line in said.splitlines()), name
    assert "c.raw" not in said
    write_volume(source / "a.mha", voxels())
    assert "would both be case a" in refused(capsys, "predict", checkpoint, source, "-o", tmp_path / "other")


def test_of_several_series_each_is_named_and_some_or_all_are_chosen(checkpoint, expected, tmp_path, capsys):
    tree = tmp_path / "study"
    write_series(tree / "st/one", voxels(), SeriesDescription="thin slices")
    write_series(tree / "st/two", voxels(1), SeriesNumber=5)
    for path in write_series(tree / "st/three", voxels(2), SeriesNumber=6).iterdir():
        path.rename(tree / f"st/two/{path.name}.dcm")
    error = refused(capsys, "predict", checkpoint, tree, "-o", tmp_path / "out")
    assert 'st_one (CT, "thin slices", 5 files), st_two_5 (CT, "thin", 5 files), st_two_6' in error
    assert "--series" in error
    assert "no DICOM series 'nine'" in refused(
        capsys, "predict", checkpoint, tree, "-o", tmp_path / "out", "--series", "nine"
    )
    assert (
        vitrim("predict", checkpoint, tree, "-o", tmp_path / "out", "--series", "st_one", "--series", "st_two_6") == 0
    )
    assert "not used: 1 DICOM series not chosen: st_two_5" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"st_one.nii.gz", "st_two_6.nii.gz"}
    assert vitrim("predict", checkpoint, tree, "-o", tmp_path / "out", "--series", "all") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"st_{n}.nii.gz" for n in ("one", "two_5", "two_6")}
    assert np.array_equal(np.asanyarray(nib.load(tmp_path / "out/st_one.nii.gz").dataobj), expected)
    assert vitrim("predict", checkpoint, tree, "-o", tmp_path / "b.mha", "--series", "st_one") == 0
    (tree / "st/half").mkdir()
    path = next((tree / "st/one").iterdir())
    path.rename(tree / "st/half" / path.name)
    assert "the files of one DICOM series lie in" in refused(
        capsys, "predict", checkpoint, tree, "-o", tmp_path / "out"
    )


def test_one_bad_volume_of_each_format_is_named_and_the_others_are_predicted(checkpoint, tmp_path, capsys):
    source = tmp_path / "in"
    for name in ("a.nrrd", "b.mha", "c.mhd", "good.nrrd"):
        path = write_volume(source / name, voxels())
        if name != "good.nrrd":
            data = path.with_suffix(".raw") if name == "c.mhd" else path
            data.write_bytes(data.read_bytes()[:-100])
    next(write_series(source / "d", voxels()).glob("*3")).unlink()
    (source / "e.hdr").write_text("text")
    error = refused(capsys, "predict", checkpoint, source, "-o", tmp_path / "out")
    assert "5 of 6 cases failed: a: " in error
    for word in ("a.nrrd is damaged", "b.mha is damaged", "c.raw is damaged", "slices are missing", "e.hdr"):
        assert word in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.nrrd"]


def test_an_out_that_cannot_be_written_is_refused_before_anything_is_computed(
    checkpoint, tmp_path, capsys, monkeypatch
):
    image = write_image(tmp_path / "a.nii.gz")
    for name in ("out.mgz", "out.dcm", "out.img", "out.png"):
        error = refused(capsys, "predict", checkpoint, image, "-o", tmp_path / name)
        assert f"no label map is written as {name[3:]}" in error
        assert not (tmp_path / name).exists()
    assert "a.mgz has no format that vitrim reads" in refused(
        capsys, "predict", checkpoint, shutil.copy(image, tmp_path / "a.mgz"), "-o", tmp_path / "out"
    )
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert "pip install 'vitrim[formats]'" in refused(capsys, "predict", checkpoint, image, "-o", tmp_path / "out.nrrd")
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "out.nii.gz") == 0


def test_sheared_grids_survive(checkpoint, tmp_path):
    image = write_image(tmp_path / "a.nii.gz")  # its affine is slightly sheared
    for ending in (".nrrd", ".mha"):
        assert vitrim("predict", checkpoint, image, "-o", tmp_path / f"out{ending}") == 0
        found = sitk.ReadImage(str(tmp_path / f"out{ending}"))
        np.testing.assert_allclose(itk_affine(found), nib.load(image).affine, atol=1e-4)


@pytest.mark.parametrize("turned", TURNED)
def test_the_place_of_a_label_map_is_that_of_the_image(turned, checkpoint, tmp_path):
    image = write_volume(tmp_path / "a.nrrd", voxels(), TURNED[turned])
    for ending in (".nii.gz", ".mha"):
        assert vitrim("predict", checkpoint, image, "-o", tmp_path / f"out{ending}") == 0
        found, own = (itk_affine(sitk.ReadImage(str(path))) for path in (tmp_path / f"out{ending}", image))
        np.testing.assert_allclose(found, own, atol=1e-4)
