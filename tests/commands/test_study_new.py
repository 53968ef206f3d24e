"""`vitrim study new`: what it finds in a folder, what it proposes, and that this runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import vitrim as package
from tests.support import vitrim, write_tiny_data
from vitrim.commands.study_new import NewStudy
from vitrim.config.reading import load_study
from vitrim.config.schema import PhantomConfig
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.readers import read_cases
from vitrim.data.split import study_splits
from vitrim.errors import DataError
from vitrim.files import read_table

PHANTOMS = {
    "decathlon": ("brain", "decathlon"),
    "ibsr18": ("brain", "ibsr18"),
    "emidec": ("cardiac", "emidec"),
    "synapse": ("abdomen", "synapse"),
    "synapse-raw": ("abdomen", "synapse"),
}
"""Each layout that a phantom is written in, with its kind and the layout that reads it."""


def write_set(
    folder: Path, cases: int = 4, spacing: tuple[float, float, float] = (1, 1, 1), low: float = 0, name: str = "case_{}"
) -> Path:
    """Write cubes with one bright cube (label 1) in the layout of the Decathlon."""
    for number in range(cases):
        label = np.zeros((24, 20, 16), np.uint8)
        label[6:14, 6:14, 4 : 8 + number % 4] = 1
        image = np.where(label > 0, 60, low).astype(np.int16)
        image[0, 0, 0] = 61
        image += np.random.default_rng(number).integers(0, 20, image.shape).astype(np.int16)
        for kind, array in (("imagesTr", image), ("labelsTr", label)):
            path = folder / kind / f"{name.format(number)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1])), path)
    return folder


def describe(folder: Path, **content: object) -> Path:
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "cube"}, **content}))
    return folder


def new(folder: Path, **options: object) -> tuple[NewStudy, dict[str, object]]:
    """A new study of `folder`, and its choices by key."""
    found = package.study_new(folder, folder.parent / "mine.yaml", **options)  # type: ignore[arg-type]
    return found, {choice.key: choice.value for choice in found.choices}


@pytest.mark.parametrize("written", PHANTOMS)
def test_every_layout_is_found_and_what_is_written_divides_its_cases(written: str, tmp_path: Path) -> None:
    kind, layout = PHANTOMS[written]
    phantom = PhantomConfig.model_validate({"kind": kind, "cases": 5, "shape": (32, 32, 8)})
    data = write_phantom(phantom, tmp_path / "data", written)
    found, chosen = new(data)
    study = load_study(found.path)
    assert (chosen["data.layout"], study.data.layout, study.name) == (layout, layout, "data")
    assert found.errors == ()
    cases = read_cases(study.data, data)
    assert study_splits(cases, study)[0].train
    if layout != "decathlon":
        paper = load_study(layout).data
        assert (study.data.axis, study.data.crop, study.data.clip) == (paper.axis, paper.crop, paper.clip)


def test_what_is_written_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_tiny_data(tmp_path / "data")
    file = tmp_path / "mine.yaml"
    assert vitrim("study", "new", "--data", data, "-o", file) == 0
    said = capsys.readouterr().out
    assert f"to run it: vitrim study {file} --data {data}" in said
    assert "data.axis: axial  (the acquired slices" in said
    short = [
        "training.steps=2",
        "data.image_size=32",
        "data.train=2",
        "width=0.125",
        "attention.cases=2",
        "attention.forms=[identity]",
        "tries=0",
    ]
    options = [part for setting in short for part in ("--set", setting)]
    assert vitrim("study", file, "--data", data, "--out", tmp_path / "run", *options) == 0
    assert read_table(tmp_path / "run/results.csv")["blocks"].tolist() == [12]


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1, 1, 1), "axial"), ((1, 1, 4), "axial"), ((4, 1, 1), "sagittal"), ((1, 4, 1), "coronal")],
)
def test_slices_are_those_that_were_acquired(spacing: tuple[float, float, float], axis: str, tmp_path: Path) -> None:
    assert new(describe(write_set(tmp_path / "set", spacing=spacing)))[1]["data.axis"] == axis


def test_planes_that_differ_between_cases_are_followed(tmp_path: Path) -> None:
    data = describe(write_set(tmp_path / "set", spacing=(1, 1, 4), name="axial_{}"))
    write_set(data, spacing=(4, 1, 1), name="sagittal_{}")
    assert new(data)[1]["data.axis"] == "through-plane"


@pytest.mark.parametrize(
    ("low", "channel", "clipped"), [(-1000, "image", True), (0, "CT", True), (0, "MRI", False), (-100, "MRI", False)]
)
def test_a_ct_is_clipped_to_the_labelled_voxels(low: float, channel: str, clipped: bool, tmp_path: Path) -> None:
    _, chosen = new(describe(write_set(tmp_path / "set", low=low), modality={"0": channel}))
    assert chosen.get("data.clip") == ([60, 80] if clipped else None)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set")
    found, chosen = new(data)
    assert chosen["data.classes"] == ["class 1"]
    assert read_cases(load_study(found.path).data, data).classes == {0: "background", 1: "class 1"}


def test_label_values_that_do_not_count_classes_are_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set")
    for path in (data / "labelsTr").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * np.uint8(255), image.affine), path)
    with pytest.raises(DataError, match=r"hold the values 0, 255: say what they mean in .*dataset\.json"):
        new(data)
    assert not (tmp_path / "mine.yaml").exists()


def test_images_of_one_patient_stay_together(tmp_path: Path) -> None:
    data = tmp_path / "set"
    for frame in ("01", "12"):
        write_set(data, cases=10, name="patient{}_frame" + frame)
    found, _ = new(describe(data))
    study = load_study(found.path)
    split = study_splits(read_cases(study.data, data), study)[0]
    train, rest = ({id.split("_")[0] for id in ids} for ids in (split.train, (*split.validation, *split.tuning)))
    assert train
    assert rest
    assert not train & rest


def test_a_common_beginning_of_all_ids_is_no_patient(tmp_path: Path) -> None:
    assert "data.patient" not in new(describe(write_set(tmp_path / "set", cases=12, name="hippocampus_{}")))[1]


def test_a_gpu_gets_the_networks_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = describe(write_set(tmp_path / "set"))
    monkeypatch.setattr("vitrim.studies.proposal.gpu_memory", lambda: 24.0)
    study = load_study(new(data)[0].path)
    paper = load_study("ibsr18")
    assert (study.size, study.width, study.data.image_size) == ("base", 1.0, (224, 224))
    assert {name: network.depths for name, network in study.networks.items()} == {
        name: network.depths for name, network in paper.networks.items()
    }
    assert (study.training.batch_size, study.training.learning_rate) == (8, 1e-4)


def test_an_image_size_that_loses_a_class_is_not_taken(tmp_path: Path) -> None:
    data = tmp_path / "set"
    for number in range(3):
        label = np.zeros((400, 400, 2), np.uint8)
        label[20:360:7, 20:360:7] = 1  # single pixels, which 128 × 128 cannot hold
        for kind, array in (("imagesTr", label.astype(np.int16) * 50 + number), ("labelsTr", label)):
            (data / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1, 1, 5, 1])), data / kind / f"case_{number}.nii.gz")
    found, chosen = new(describe(data))
    assert chosen["data.image_size"] == 256
    assert "limits the Dice of cube to" in next(c.why for c in found.choices if c.key == "data.image_size")


def test_what_is_wrong_with_a_case_is_said_and_the_study_is_written(tmp_path: Path) -> None:
    data = describe(write_set(tmp_path / "set"))
    (data / "imagesTr/case_1.nii.gz").write_bytes(b"nothing")
    (data / "labelsTr/case_2.nii.gz").unlink()
    found, _ = new(data)
    assert len(found.errors) == 2
    assert "case_1" in str(found.errors)
    assert "case_2" in str(found.errors)
    load_study(found.path)


def test_no_existing_file_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = describe(write_set(tmp_path / "set"))
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\n")
    assert vitrim("study", "new", "--data", data, "-o", file) == 2
    assert file.read_text() == "name: mine\n"
    assert "exists and is never overwritten" in capsys.readouterr().err
    assert vitrim("study", "new", "--data", data, "-o", tmp_path) == 2
    file.unlink()
    assert [vitrim("study", "new", "--data", data, "-o", file) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("spoil", ["missing", "empty", "one case", "no labels"])
def test_a_folder_without_enough_cases_is_refused_in_one_line(spoil: str, tmp_path: Path, capsys) -> None:
    data = tmp_path / "set"
    if spoil != "missing":
        data.mkdir()
    if spoil in ("one case", "no labels"):
        describe(write_set(data, cases=1 if spoil == "one case" else 3))
    if spoil == "no labels":
        shutil.rmtree(data / "labelsTr")
    assert vitrim("-q", "study", "new", "--data", data, "-o", tmp_path / "mine.yaml") == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert str(data) in error
    assert not (tmp_path / "mine.yaml").exists()


def test_names_from_files_stay_in_their_comments(tmp_path: Path) -> None:
    data = write_set(tmp_path / "007")
    describe(data, labels={"0": "background", "1": "cube\nseed: 5\u2028tries: 0"}, modality={"0": "MRI\nseed: 4"})
    found, _ = new(data)
    study = load_study(found.path)
    assert (study.name, study.seed, study.tries) == ("007", 0, 4)
    assert set(yaml.safe_load(found.path.read_text())) <= set(type(study).model_fields)
