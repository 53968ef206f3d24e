"""The check of a data set before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from vitrim.config.schema import DataConfig, PhantomConfig
from vitrim.data.check import Findings, beside_paper, check_cases
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.readers import read_cases
from vitrim.data.split import Split

Write = Callable[..., Path]
CONFIG = DataConfig(image_size=32)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def check(folder: Path, config: DataConfig = CONFIG) -> Findings:
    return check_cases(read_cases(config, folder, strict=False), config)


def test_a_sound_data_set_has_no_problems_and_is_described(decathlon: Path) -> None:
    findings = check(decathlon)
    assert findings.problems == []
    case = findings.cases[1]
    assert (case.case, case.shape, case.spacing, case.orientation) == ("case_1", [12, 10, 6], [1, 2, 3], "RAS")
    assert case.voxels == {"background": 648, "left": 48, "right": 24}
    assert (case.slices, case.labelled_slices) == (6, 3)
    assert case.ceiling == {"left": 1.0, "right": 1.0}
    text = "\n".join(findings.summary())
    assert "3 cases" in text
    assert "12×10×6" in text
    assert "18, 10 of them" in text


def test_the_ceiling_is_that_of_the_scaling_asked_for(decathlon: Path) -> None:
    """The ceiling is Dice after scipy's zoom there and back; a crop that removes part of a structure lowers it."""
    zoom = CONFIG.model_copy(update={"scaling": "zoom"})
    assert [case.ceiling for case in check(decathlon, zoom).cases] == [{"left": 1.0, "right": 1.0}] * 3
    small = zoom.model_copy(update={"image_size": (7, 5), "axis": 2})
    labels = np.asanyarray(nib.load(decathlon / "labelsTr/case_0.nii.gz").dataobj)
    there = ndimage.zoom(labels, (7 / 12, 5 / 10, 1), order=0)
    back = ndimage.zoom(there, (12 / 7, 10 / 5, 1), order=0)
    expected = {
        name: 2 * ((labels == n) & (back == n)).sum() / ((labels == n).sum() + (back == n).sum())
        for n, name in ((1, "left"), (2, "right"))
    }
    assert check(decathlon, small).cases[0].ceiling == pytest.approx(expected)
    assert check(decathlon, small.model_copy(update={"scaling": "linear"})).cases[0].ceiling != pytest.approx(expected)
    cut = check(decathlon, zoom.model_copy(update={"crop": (10, 6)})).cases[0].ceiling
    assert cut is not None
    assert cut["right"] < 1


def test_every_problem_is_found_in_one_run(decathlon: Path, write: Write) -> None:
    def path(part: str, id: str) -> Path:
        return decathlon / part / f"{id}.nii.gz"

    for number in range(3, 12):
        for part in ("imagesTr", "labelsTr"):
            shutil.copy(path(part, "case_0"), path(part, f"case_{number}"))
        rng = np.random.default_rng(number)
        write(path("imagesTr", f"case_{number}"), rng.normal(100, 5, (12, 10, 6)).astype(np.float32), AFFINE)
    description = json.loads((decathlon / "dataset.json").read_text(encoding="utf-8"))
    description["training"], description["labels"]["3"] = [], "never"
    (decathlon / "dataset.json").write_text(json.dumps(description), encoding="utf-8")

    path("labelsTr", "case_3").unlink()
    path("imagesTr", "case_4").write_bytes(path("imagesTr", "case_4").read_bytes()[:-300])
    path("imagesTr", "case_5").write_text("dear doctor", encoding="utf-8")
    write(path("labelsTr", "case_6"), np.zeros((12, 10, 5), np.uint8), AFFINE)
    both = np.ones((12, 10, 6), np.float32)
    both[0, 0, 0] = np.nan
    write(path("imagesTr", "case_7"), both, AFFINE)
    write(path("labelsTr", "case_7"), np.full((12, 10, 6), 9, np.uint8), AFFINE)
    write(path("imagesTr", "case_8"), np.full((12, 10, 6), 7, np.int16), AFFINE)
    shutil.copy(path("imagesTr", "case_1"), path("imagesTr", "case_9"))
    write(path("labelsTr", "case_10"), np.zeros((12, 10, 6), np.uint8), AFFINE)

    findings = check(decathlon)
    expected = [
        ("image without its label", "case_3"),
        ("cannot read", "case_4"),
        ("cannot read", "case_5"),
        ("differ in shape", "case_6"),
        ("NaN or infinity", "case_7"),
        ("label value 9", "case_7"),
        ("all voxels are 7", "case_8"),
        ("same image", "case_9"),
    ]
    for what, where in expected:
        assert any(what in line and where in line for line in findings.errors), (what, where)
    assert len(findings.errors) == len(expected)
    assert any("only background" in line and "case_10" in line for line in findings.warnings)
    assert any("'never' occurs in none" in line for line in findings.warnings)
    assert len(findings.warnings) == 2


def test_what_was_found_is_written_as_json(decathlon: Path, write: Write, tmp_path: Path) -> None:
    image = np.full((12, 10, 6), np.inf, np.float32)
    write(decathlon / "imagesTr" / "case_0.nii.gz", image, AFFINE)
    check(decathlon).save(tmp_path / "findings.json")
    content = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert len(content["cases"]) == 3
    assert len(content["errors"]) == 1


def test_only_the_cases_of_a_study_can_be_checked_and_progress_is_told(decathlon: Path) -> None:
    seen = []
    case_set = read_cases(CONFIG, decathlon)
    findings = check_cases(case_set, CONFIG, ["case_2"], lambda done, total: seen.append((done, total)))
    assert [case.case for case in findings.cases] == ["case_2"]
    assert seen == [(1, 1)]


def test_a_label_set_with_more_classes_than_the_configuration_is_never_silent(decathlon: Path, write: Write) -> None:
    """In the public TransUNet code, labels of 14 classes and a network of 9 gave a Dice of 0.13 without any error."""
    write(decathlon / "labelsTr" / "case_0.nii.gz", np.full((12, 10, 6), 13, np.uint8), AFFINE)
    assert "label value 13" in check(decathlon).errors[0]


def test_a_slice_of_the_release_that_is_damaged_does_not_hide_the_rest(tmp_path: Path) -> None:
    config = DataConfig(layout="synapse", image_size=32)
    phantom = PhantomConfig(kind="abdomen", cases=3, shape=(32, 32, 3))
    folder = write_phantom(phantom, tmp_path / "set", "synapse")
    (folder / "train_npz" / "case0001_slice001.npz").write_bytes(b"broken")
    findings = check(folder, config)
    assert len([line for line in findings.errors if "cannot read" in line]) == 1
    assert [case.shape is not None for case in findings.cases] == [False, True, True]


def test_slices_are_counted_beside_the_papers(tmp_path: Path) -> None:
    config = DataConfig(layout="ibsr18", axis="through-plane", image_size=32)
    folder = write_phantom(PhantomConfig(kind="brain", cases=3, shape=(24, 12, 24)), tmp_path / "set", "ibsr18")
    findings = check(folder, config)
    line = beside_paper(findings, Split(("IBSR_01", "IBSR_02"), ("IBSR_03",)))
    assert line == (
        "training 2 cases with 24 slices (paper: 10 with 1280), validation 1 cases with 12 slices (paper: 5 with 640)"
    )


def test_there_is_no_paper_to_compare_other_data_sets_with(decathlon: Path) -> None:
    assert beside_paper(check(decathlon), Split(("case_0",), ("case_1",))) is None


@pytest.mark.parametrize("name", ["sunnybrook_lv", "sunnybrook_lv_myo", "totalseg_example_ct"])
def test_real_data_sets_are_sound(shared: Path, name: str) -> None:
    findings = check(shared / "data" / name)
    assert findings.problems == []


def test_label_values_that_were_rounded_are_said(decathlon: Path, write: Write) -> None:
    path = decathlon / "labelsTr" / "case_1.nii.gz"
    image = nib.load(path)
    write(path, np.asarray(image.dataobj) * 0.99999999977, image.affine)
    findings = check(decathlon)
    assert not findings.errors
    assert any("case_1" in line and "were rounded" in line for line in findings.warnings)
