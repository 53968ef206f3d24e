"""What `vitrim predict` cannot use is refused in one line, and nothing is left half-written."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import vitrim, write_checkpoint, write_image


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run it; give its one line."""
    capsys.readouterr()
    assert vitrim(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vitrim: ")
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    return error


def with_nan(path: Path) -> None:
    array = np.zeros((20, 24, 5), np.float32)
    array[3, 4, 1] = np.nan
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def promising(path: Path) -> None:
    """A header of 10^12 voxels before a few bytes."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"][:4] = (3, 10000, 10000, 10000)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 500))


BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another number of channels": (lambda p: write_image(p.with_name("bad_0001.nii.gz")), "2 channels"),
    "a series": (lambda p: write_image(p, (20, 24, 5, 7)), "series of 7 volumes"),
    "text": (lambda p: p.write_text("not an image"), "bad.nii.gz"),
    "zipped text": (lambda p: p.write_bytes(gzip.compress(b"not an image" * 99)), "bad.nii.gz"),
    "nothing": (lambda p: p.write_bytes(b""), "bad.nii.gz"),
    "a promise of 10^12 voxels": (promising, "1e+12 voxels"),
    "NaN": (with_nan, "NaN"),
    "a folder named as a file": (lambda p: p.mkdir(), "bad.nii.gz"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_one_bad_image_among_several_is_named_and_the_others_are_predicted(name, checkpoint, tmp_path, capsys):
    write, word = BAD_IMAGES[name]
    source, out = tmp_path / "in", tmp_path / "out"
    write_image(source / "aaa.nii.gz")
    write_image(source / "zzz.nii.gz")
    if name == "another number of channels":
        write_image(source / "bad_0000.nii.gz")
    write(source / "bad.nii.gz")
    error = refused(capsys, "predict", checkpoint, source, "-o", out, "--labels", "--probabilities", "--preview")
    assert "1 of 3 cases failed: bad: " in error
    assert word in error
    assert {path.name.split("_")[0].split(".")[0] for path in out.iterdir()} == {"aaa", "zzz", "volumes"}
    assert "bad" not in (out / "volumes.csv").read_text()


def test_where_all_fail_no_folder_is_left(checkpoint, tmp_path, capsys):
    (tmp_path / "a.nii.gz").write_text("not an image")
    assert "1 of 1 case failed" in refused(capsys, "predict", checkpoint, tmp_path / "a.nii.gz", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_paths_are_refused(checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    image, source = write_image(tmp_path / "in/a.nii.gz"), tmp_path / "in"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "text.txt").write_text("mine")
    for arguments, word in (
        ((checkpoint, tmp_path / "empty", tmp_path / "out"), "no volumes in"),
        ((checkpoint, tmp_path / "nowhere", tmp_path / "out"), "nowhere"),
        ((checkpoint, tmp_path / "text.txt", tmp_path / "out"), "no format that vitrim reads"),
        ((checkpoint, source, tmp_path / "out.nii.gz"), "is a folder"),
        ((checkpoint, source, tmp_path / "file"), "is a file"),
        ((checkpoint, source, tmp_path / "file/out"), "cannot write into"),
        ((checkpoint, source, source), "is an image"),
        ((checkpoint, image, image), "is an image"),
        ((tmp_path / "nowhere", source, tmp_path / "out"), "nowhere"),
        ((tmp_path / "nowhere.onnx", source, tmp_path / "out"), "nowhere.onnx"),
        ((checkpoint, source, tmp_path / "out", "--study", "nothing"), "nothing"),
    ):
        network, source_, out, *options = arguments
        assert word in refused(capsys, "predict", network, source_, "-o", out, *options)
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in source.iterdir()] == ["a.nii.gz"]


def test_two_images_of_one_name_are_refused(checkpoint, tmp_path, capsys):
    write_image(tmp_path / "in/a.nii.gz")
    write_image(tmp_path / "in/a.nii")
    assert "both be case a" in refused(capsys, "predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out")


def test_a_full_disk_stops_with_what_is_finished_and_no_half_file(checkpoint, tmp_path, capsys, monkeypatch):
    class Full(gzip.GzipFile):
        """Takes a part of the file of case b, then has no more room."""

        def write(self, data):
            if "b.nii.gz" not in self.fileobj.name:
                return super().write(data)
            super().write(bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in "abc":
        write_image(tmp_path / f"in/{name}.nii.gz")
    monkeypatch.setattr("vitrim.inference.outputs.gzip.GzipFile", Full)
    error = refused(capsys, "predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out")
    assert "No space left on device" in error
    assert "b.nii.gz" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5000])


def explosive(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(folder / "exploded")))


def other_classes(folder: Path) -> None:
    content = json.loads((folder / "preparation.json").read_text())
    del content["classes"]["2"]
    (folder / "preparation.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (cut, "damaged"),
        (explosive, "damaged"),
        (other_classes, "classes"),
        (lambda f: (f / "preparation.json").write_text("[1]"), "preparation.json"),
        (lambda f: (f / "preparation.json").write_text("{"), "preparation.json"),
        (lambda f: (f / "preparation.json").unlink(), "--study"),
    ],
)
def test_a_damaged_checkpoint_is_refused(spoil, word, tmp_path, capsys):
    folder = write_checkpoint(tmp_path / "network")
    spoil(folder)
    image = write_image(tmp_path / "a.nii.gz")
    assert word in refused(capsys, "predict", folder, image, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (folder / "exploded").exists()
