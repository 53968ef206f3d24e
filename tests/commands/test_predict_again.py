"""Predicting into a folder that holds predictions: what is there is kept, and nothing foreign is replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import nibabel as nib
import pytest

from tests.support import vitrim, write_checkpoint, write_image


def test_the_same_prediction_gives_the_same_bytes(checkpoint, tmp_path):
    image = write_image(tmp_path / "a.nii.gz")
    for out in ("one", "two"):
        assert vitrim("predict", checkpoint, image, "-o", tmp_path / out, "--probabilities") == 0
    for name in ("a.nii.gz", "a_probabilities.nii.gz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_there_is_kept_and_the_rest_is_made(checkpoint, tmp_path, capsys):
    for name in "abc":
        write_image(tmp_path / f"in/{name}.nii.gz", seed=ord(name))
    out = tmp_path / "out"
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", out, "--labels") == 0
    table = (out / "volumes.csv").read_text()
    for path in out.glob("*.nii.gz"):
        os.utime(path, (0, 0))
    (out / "b.nii.gz").unlink()
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", out, "--labels") == 0
    assert "2 of them kept" in capsys.readouterr().out
    assert {path.name for path in out.glob("*.nii.gz") if path.stat().st_mtime} == {"b.nii.gz"}
    assert (out / "volumes.csv").read_text() == table
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", out, "--probabilities") == 0
    assert len(list(out.glob("*_probabilities.nii.gz"))) == 3


def another_network(checkpoint: Path, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "other", seed=1)


def another_image(checkpoint: Path, tmp_path: Path) -> Path:
    write_image(tmp_path / "in/a.nii.gz", seed=5)
    return checkpoint


def another_preparation(checkpoint: Path, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "other", data={"axis": "sagittal"})


def something_else(checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copy(tmp_path / "in/a.nii.gz", tmp_path / "out/a.nii.gz")
    return checkpoint


@pytest.mark.parametrize("change", [another_network, another_image, another_preparation, something_else])
def test_what_was_made_otherwise_is_neither_kept_nor_replaced_unasked(change, checkpoint, tmp_path, capsys):
    write_image(tmp_path / "in/a.nii.gz")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out") == 0
    now = change(checkpoint, tmp_path)
    before = (tmp_path / "out/a.nii.gz").read_bytes()
    capsys.readouterr()
    assert vitrim("predict", now, tmp_path / "in", "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "a.nii.gz exists" in error
    assert "--overwrite" in error
    assert (tmp_path / "out/a.nii.gz").read_bytes() == before
    assert vitrim("predict", now, tmp_path / "in", "-o", tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out/a.nii.gz").read_bytes() != before


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_with_a_replaced_label_map_goes_what_belonged_to_it(checkpoint, tmp_path):
    for case in ("a", "a_probabilities"):  # a case may be called so
        write_image(tmp_path / f"in/{case}.nii.gz", seed=len(case))
    out = tmp_path / "out"
    assert (
        vitrim("predict", checkpoint, tmp_path / "in/a.nii.gz", "-o", out, "--probabilities", "--preview", "--labels")
        == 0
    )
    both = ["a.nii.gz", "a_preview.png", "a_probabilities.nii.gz"]
    assert names(out) == [*both, "volumes.csv"]
    assert vitrim("predict", checkpoint, tmp_path / "in/a.nii.gz", "-o", out, "--overwrite") == 0
    assert names(out) == both, "the same network made them: they belong to the new label map too"
    other = another_network(checkpoint, tmp_path)
    (out / "notes.csv").write_text("mine")
    assert vitrim("predict", other, tmp_path / "in/a.nii.gz", "-o", out, "--overwrite") == 0
    assert names(out) == ["a.nii.gz", "notes.csv"]
    assert vitrim("predict", other, tmp_path / "in", "-o", out) == 0
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", out, "--overwrite") == 0
    assert names(out) == ["a.nii.gz", "a_probabilities.nii.gz", "notes.csv"]
    assert nib.load(out / "a_probabilities.nii.gz").shape == (20, 24, 5)


def test_probabilities_without_their_label_map_are_not_taken_for_those_of_another(checkpoint, tmp_path, capsys):
    image, out = write_image(tmp_path / "a.nii.gz"), tmp_path / "out"
    assert vitrim("predict", checkpoint, image, "-o", out, "--probabilities") == 0
    (out / "a.nii.gz").unlink()
    other = another_network(checkpoint, tmp_path)
    capsys.readouterr()
    assert vitrim("predict", other, image, "-o", out) == 2
    assert "a_probabilities.nii.gz exists and was made with another network" in capsys.readouterr().err
    assert vitrim("predict", other, image, "-o", out, "--overwrite") == 0
    assert names(out) == ["a.nii.gz"]


def test_a_preview_and_a_table_without_label_maps_are_not_taken_for_those_of_another(checkpoint, tmp_path):
    image, out = write_image(tmp_path / "a.nii.gz"), tmp_path / "out"
    assert vitrim("predict", checkpoint, image, "-o", out, "--preview", "--labels") == 0
    (out / "a.nii.gz").unlink()
    assert vitrim("predict", another_network(checkpoint, tmp_path), image, "-o", out) == 0
    assert names(out) == ["a.nii.gz"]


def test_a_table_goes_before_the_label_maps_that_it_tells_of(checkpoint, tmp_path, monkeypatch):
    """Stopped half way, nothing of the network before is left to be read as of this one."""
    for case in "ab":
        write_image(tmp_path / f"in/{case}.nii.gz", seed=ord(case))
    arguments = ("predict", another_network(checkpoint, tmp_path), tmp_path / "in", "-o", tmp_path / "out", "--labels")
    assert vitrim("predict", checkpoint, *arguments[2:]) == 0

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitrim.inference.predictor.segment_slices", stopped)
    with contextlib.suppress(KeyboardInterrupt):
        vitrim(*arguments, "--overwrite")
    assert not (tmp_path / "out/volumes.csv").exists()
    monkeypatch.undo()
    assert vitrim(*arguments, "--overwrite") == 0
    assert (tmp_path / "out/volumes.csv").exists()


def test_a_table_or_a_picture_of_the_user_is_never_replaced_without_being_asked(checkpoint, tmp_path, capsys):
    image = write_image(tmp_path / "in" / "knee.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    (out / "volumes.csv").write_text("my,table\n")
    (out / "knee_preview.png").write_bytes(b"my picture")
    run = ("predict", checkpoint, image.parent, "-o", out)
    for option, name in (("--labels", "volumes.csv"), ("--preview", "knee_preview.png")):
        assert vitrim(*run, option) == 2
        error = capsys.readouterr().err
        assert name in error
        assert "--overwrite" in error
    assert vitrim(*run) == 0
    assert vitrim(*run, "--precision", "float32", "--overwrite") == 0
    assert (out / "volumes.csv").read_text() == "my,table\n"
    assert (out / "knee_preview.png").read_bytes() == b"my picture"
    assert vitrim(*run, "--preview", "--labels", "--overwrite") == 0
    assert vitrim(*run, "--preview", "--labels") == 0  # they are vitrim's now
