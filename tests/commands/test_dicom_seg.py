"""`vitrim predict --dicom-seg`: the segmentation opens again, with the voxels and the place of the label map."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.formats import TURNED, pydicom, voxels, write_series
from tests.support import vitrim, write_checkpoint, write_image
from vitrim.inference.structure_codes import structure_code

highdicom = pytest.importorskip("highdicom", reason="highdicom is missing: pip install 'vitrim[formats]'")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
FRAME = "1.2.3.4"


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A network whose classes are two structures: one with a code, one without."""
    folder = write_checkpoint(tmp_path_factory.mktemp("network") / "network")
    stored = json.loads((folder / "preparation.json").read_text())
    stored["classes"] = {"0": "background", "1": "left kidney", "2": "my structure"}
    (folder / "preparation.json").write_text(json.dumps(stored))
    return folder


def predicted(network: Path, folder: Path, *options: str, **tags: object) -> tuple[np.ndarray, np.ndarray, Path]:
    """Predict a series; return the label map (X, Y, Z), its affine, and the path of the SEG."""
    series = write_series(folder / "in/scan", voxels(), FrameOfReferenceUID=FRAME, **tags)
    assert vitrim("predict", network, series, "-o", folder / "out", "--dicom-seg", *options) == 0
    image = nib.load(folder / "out/scan.nii.gz")
    return np.asarray(image.dataobj), image.affine, folder / "out/scan_seg.dcm"


@pytest.mark.parametrize("direction", TURNED)
def test_voxels_and_geometry_are_those_of_the_label_map(network, tmp_path, direction):
    labels, affine, path = predicted(network, tmp_path, direction=TURNED[direction])
    assert set(np.unique(labels)) == {0, 1, 2}
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    # highdicom's axes are slice, row and column, and its slices may run in the other direction
    found = np.zeros_like(labels)
    places = np.argwhere(np.ones(volume.spatial_shape, bool))
    positions = (volume.affine @ np.c_[places, np.ones(len(places))].T)[:3]
    indices = (np.linalg.inv(LPS @ affine) @ np.r_[positions, np.ones((1, len(places)))])[:3].T
    np.testing.assert_allclose(indices, indices.round(), atol=1e-3)
    found[tuple(indices.round().astype(int).T)] = volume.array.reshape(-1)
    np.testing.assert_array_equal(found, labels)


def test_it_refers_to_the_slices_and_names_the_structures(network, tmp_path):
    labels, _, path = predicted(network, tmp_path, PatientID="p7", SeriesNumber=4)
    seg = pydicom.dcmread(path)
    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in (tmp_path / "in/scan").iterdir()]
    assert seg.SOPClassUID == pydicom.uid.SegmentationStorage
    assert (seg.PatientID, seg.FrameOfReferenceUID, seg.SeriesNumber) == ("p7", FRAME, 1004)
    assert seg.StudyInstanceUID == slices[0].StudyInstanceUID
    assert seg.SeriesInstanceUID != slices[0].SeriesInstanceUID
    referred = seg.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == {
        one.SOPInstanceUID for one in slices
    }
    kidney, other = seg.SegmentSequence
    concept = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kidney.SegmentNumber, kidney.SegmentLabel) == (1, "left kidney")
    assert (concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert concept.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    concept = other.SegmentedPropertyTypeCodeSequence[0]
    assert (concept.CodingSchemeDesignator, concept.CodeMeaning) == ("99VITRIM", "my structure")
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = next(one.ImagePositionPatient for one in slices if one.SOPInstanceUID == uid)
        assert group.PlanePositionSequence[0].ImagePositionPatient == place
        assert frame.sum() > 0
        assert number in (1, 2)
    assert seg.pixel_array.sum() == np.count_nonzero(labels)


def test_a_series_with_its_segmentation_beside_it_is_still_one_series(network, tmp_path, capsys):
    _, _, path = predicted(network, tmp_path)
    before = path.read_bytes()
    path.rename(tmp_path / "in/scan/seg.dcm")
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "again", "--dicom-seg") == 0
    assert "DICOM without an image to segment): scan/seg.dcm" in capsys.readouterr().out
    capsys.readouterr()
    (tmp_path / "in/scan/seg.dcm").unlink()
    kept = (tmp_path / "again/scan_seg.dcm").read_bytes()
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "again", "--dicom-seg") == 0
    assert "1 of them kept from before" in capsys.readouterr().out
    assert (tmp_path / "again/scan_seg.dcm").read_bytes() == kept != before


def test_a_segmentation_of_another_network_is_not_kept_as_ones_own(network, tmp_path, capsys):
    _, _, path = predicted(network, tmp_path)
    other = write_checkpoint(tmp_path / "other", seed=1)
    series = tmp_path / "in/scan"
    assert vitrim("predict", other, series, "-o", tmp_path / "out", "--dicom-seg") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert vitrim("predict", other, series, "-o", tmp_path / "out", "--overwrite") == 0
    assert not path.exists()  # it would stand beside the label map of another network


def test_where_nothing_is_found_the_segmentation_is_empty_but_there(network, tmp_path):
    import torch

    import vitrim as package

    nothing = package.load_model(network)
    with torch.no_grad():
        nothing.get_parameter("head.bias")[0] += 1e4
    package.save_model(nothing, tmp_path / "nothing")
    (tmp_path / "nothing/preparation.json").write_text((network / "preparation.json").read_text())
    labels, _, path = predicted(tmp_path / "nothing", tmp_path)
    assert not labels.any()
    seg = highdicom.seg.segread(path)
    assert seg.number_of_segments == 2
    assert not seg.pixel_array.any()


def test_what_no_segmentation_can_refer_to_is_refused(network, tmp_path, capsys, monkeypatch):
    volume = write_image(tmp_path / "volume.nii.gz")
    assert vitrim("predict", network, volume, "-o", tmp_path / "out", "--dicom-seg") == 2
    assert "is no DICOM series" in capsys.readouterr().err
    series = write_series(tmp_path / "scan", voxels())
    assert vitrim("predict", network, series, "-o", tmp_path / "out", "--dicom-seg") == 2
    assert "has no FrameOfReferenceUID" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    assert vitrim("predict", network, series, "-o", tmp_path / "out", "--dicom-seg") == 2
    assert "needs highdicom: pip install 'vitrim[formats]'" in capsys.readouterr().err


def test_a_series_with_a_header_that_no_segmentation_can_copy_fails_alone(network, tmp_path, capsys):
    write_series(tmp_path / "in/a", voxels(), FrameOfReferenceUID=FRAME)
    write_series(tmp_path / "in/b", voxels(1), FrameOfReferenceUID="1.2.5", SeriesNumber=2**31 - 1)
    for file in (tmp_path / "in/a").iterdir():
        content = pydicom.dcmread(file)
        content.add_new("PatientBirthDate", "LO", "unknown")
        content.save_as(file)
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "out", "--dicom-seg", "--series", "all") == 2
    assert "1 of 2 cases failed: a: cannot write" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b.nii.gz", "b_seg.dcm"}


@pytest.mark.parametrize(
    ("name", "meaning", "side", "category"),
    [
        ("liver", "Liver", None, "Anatomical Structure"),
        ("Right_Kidney", "Kidney", "Right", "Anatomical Structure"),
        ("left ventricle", "Left ventricle", None, "Anatomical Structure"),
        ("fat", "Fat", None, "Tissue"),
        ("tumour", "Neoplasm", None, "Morphologically Abnormal Structure"),
        ("bright", "bright", None, "Spatial and Relational Concept"),
    ],
)
def test_names_of_structures_have_dicoms_codes(name, meaning, side, category):
    code = structure_code(3, name)
    assert code.concept.meaning == meaning
    assert (code.side.meaning if code.side else None) == side
    assert category.lower() in code.category.meaning.lower()
    assert code.known == (name != "bright")
