"""The command line, as a user meets it: quick help, one clear line for bad input, nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.support import tiny_study, vitrim


def rewrite(path: Path, change) -> None:
    """Save a NIfTI file again with `change` applied to (array, affine)."""
    image = nibabel.load(path)
    array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def put(value, place=(3, 4, 1)):
    def change(array, affine):
        array = array.astype(np.float32)
        array[place] = value
        return array, affine

    return change


def shift(array, affine):
    affine[0, 3] += 40
    return array, affine


def spoil_nothing_but_delete_images(data: Path) -> None:
    for path in (data / "imagesTr").iterdir():
        path.unlink()


def truncate_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


BAD_DATA = {
    "an image without its label": (lambda d: (d / "labelsTr/case_002.nii.gz").unlink(), "case_002"),
    "an empty folder": (lambda d: [p.unlink() for p in d.rglob("*.*")], "data"),
    "no images": (spoil_nothing_but_delete_images, "case_"),
    "a label of another shape": (
        lambda d: rewrite(d / "labelsTr/case_001.nii.gz", lambda a, m: (a[:, :-1], m)),
        "case_001",
    ),
    "a label somewhere else": (lambda d: rewrite(d / "labelsTr/case_001.nii.gz", shift), "case_001"),
    "an unknown label": (lambda d: rewrite(d / "labelsTr/case_003.nii.gz", put(7)), "7"),
    "a fractional label": (lambda d: rewrite(d / "labelsTr/case_003.nii.gz", put(0.5)), "case_003"),
    "NaN in an image": (lambda d: rewrite(d / "imagesTr/case_004.nii.gz", put(np.nan)), "case_004"),
    "infinity in an image": (lambda d: rewrite(d / "imagesTr/case_004.nii.gz", put(np.inf)), "case_004"),
    "a truncated file": (lambda d: truncate_file(d / "imagesTr/case_005.nii.gz"), "case_005"),
    "text called NIfTI": (
        lambda d: (d / "imagesTr/case_005.nii.gz").write_bytes(gzip.compress(b"not an image" * 99)),
        "case_005",
    ),
    "a dataset.json that is none": (lambda d: (d / "dataset.json").write_text("{"), "dataset.json"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_refused_in_one_line_and_leaves_nothing(name, tiny_data, tmp_path, capsys):
    spoil, word = BAD_DATA[name]
    spoil(tiny_data)
    status = vitrim("study", tiny_study(tmp_path / "tiny.yaml"), "--data", tiny_data, "--out", tmp_path / "out")
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert error.startswith("vitrim: ")
    assert len(error.splitlines()) == 1
    assert word in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": {"image_size": 100}}, "multiple of 16"),
        ({"colour": "red"}, "colour"),
        ({"networks": {"unetr2d": {"depths": [0]}}}, "unetr2d"),
        ({"data": {"image_size": 64, "validation": 8}}, "too few cases"),
        ({"data": {"image_size": 64, "classes": ["bright"]}}, "classes"),
    ],
)
def test_a_bad_configuration_is_refused_in_one_line_and_leaves_nothing(changes, word, tiny_data, tmp_path, capsys):
    file = tiny_study(tmp_path / "tiny.yaml", **changes)
    status = vitrim("study", file, "--data", tiny_data, "--out", tmp_path / "out")
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert len(error.splitlines()) == 1
    assert word in error
    assert not (tmp_path / "out").exists()


def test_a_missing_study_and_a_missing_folder_are_refused(tmp_path, capsys):
    assert vitrim("study", "no-such-preset") == 2
    assert "no-such-preset" in capsys.readouterr().err
    file = tiny_study(tmp_path / "tiny.yaml")
    assert vitrim("study", file, "--data", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere" in capsys.readouterr().err
    assert vitrim("study", file, "--out", tmp_path / "out") == 2
    assert "--data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_never_touched(tiny_data, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    assert vitrim("study", tiny_study(tmp_path / "tiny.yaml"), "--data", tiny_data, "--out", out) == 2
    assert "thesis" not in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_folder_of_another_study_is_refused_and_says_where_it_differs(tiny_data, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    first = tiny_study(tmp_path / "first.yaml")
    from vitrim.config.reading import load_study
    from vitrim.hardware import resolved
    from vitrim.studies.folder import claim

    study = load_study(str(first))
    claim(out, study.model_copy(update={"training": resolved(study.training)}), "fingerprint")
    (out / "trials" / "transunet-12-0").mkdir(parents=True)
    (out / "trials" / "transunet-12-0" / "trial.json").write_text("{}")
    before = json.loads((out / "study.json").read_text())
    second = tiny_study(tmp_path / "second.yaml", seed=5)
    assert vitrim("study", second, "--data", tiny_data, "--out", out) == 2
    assert "seed" in capsys.readouterr().err
    assert json.loads((out / "study.json").read_text()) == before


def test_after_a_start_that_failed_the_corrected_study_takes_the_folder(tiny_data, tmp_path, capsys):
    out = tmp_path / "out"
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e30}
    wrong = tiny_study(tmp_path / "wrong.yaml", training=training, seed=1, networks={"unetr2d": {"depths": [3]}})
    assert vitrim("study", wrong, "--data", tiny_data, "--out", out) == 1
    assert "learning_rate" in capsys.readouterr().err
    (out / "notes.txt").write_text("mine")
    right = tiny_study(tmp_path / "right.yaml", networks={"unetr2d": {}}, data={"image_size": 64, "validation": 2})
    assert vitrim("study", right, "--data", tiny_data, "--out", out, "--tries", 0) == 0
    assert not (out / "failed").exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_data_set_is_checked_and_every_problem_is_said(tiny_data, tmp_path, capsys):
    found = tmp_path / "found.json"
    assert vitrim("data", "check", "decathlon", tiny_data, "--out", found) == 0
    assert "8 cases" in capsys.readouterr().out
    rewrite(tiny_data / "imagesTr/case_004.nii.gz", put(np.nan))
    rewrite(tiny_data / "labelsTr/case_003.nii.gz", put(7))
    assert vitrim("data", "check", "decathlon", tiny_data, "--out", found) == 2
    said = capsys.readouterr()
    assert "case_003" in said.out
    assert "case_004" in said.out
    assert len(json.loads(found.read_text())["errors"]) == 2
    assert "2 problems" in said.err


def test_a_phantom_is_written_and_read_again(tmp_path, capsys):
    folder = tmp_path / "phantom ü"
    assert vitrim("data", "phantom", "cardiac", folder, "--layout", "emidec", "--cases", 2) == 0
    assert vitrim("data", "check", "emidec", folder, "--out", tmp_path / "found.json") == 0
    assert "2 cases" in capsys.readouterr().out
    assert vitrim("data", "phantom", "cardiac", folder, "--cases", 2) == 2
    assert "exists" in capsys.readouterr().err


def test_a_path_that_cannot_be_is_one_line(tmp_path, capsys, monkeypatch):
    long = "a" * 300
    (tmp_path / "file").write_text("")
    for path in (tmp_path / long, tmp_path / "file" / "below"):
        for command in (
            ("predict", path, path, tmp_path / "out"),
            ("data", "check", "decathlon", path),
            ("report", path),
            ("study", path),
            ("evaluate", path, "--data", path, "--out", tmp_path / "out"),
        ):
            assert vitrim(*command) == 2, command
            error = capsys.readouterr().err.strip()
            assert len(error.splitlines()) == 1
            assert len(error) < 1000
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert vitrim("data", "phantom", "cardiac", "phantom", "--cases", 2) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_does_not_know_a_character_does_not_end_a_command(tiny_data, tmp_path, encoding):
    done = subprocess.run(
        [sys.executable, "-c", "from vitrim.cli import main; main()", "data", "check", "decathlon", "缺失"],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("vitrim: no such data folder: ")
    assert len(done.stderr.strip().splitlines()) == 1
