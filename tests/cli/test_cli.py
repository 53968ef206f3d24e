"""The command line, as a user meets it: quick help, one clear line for bad input, nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import nibabel
import numpy as np
import pandas as pd
import pytest
import typer

from tests.support import SHORT, tiny_study, vitrim
from vitrim.cli import app
from vitrim.config import names
from vitrim.config.reading import presets
from vitrim.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


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
    file = tiny_study(tmp_path / "tiny.yaml", data={"image_size": 64, "validation": 3})  # that uses all cases
    status = vitrim("study", file, "--data", tiny_data, "--out", tmp_path / "out")
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
    data = {"image_size": 64, "validation": 2, "train": 2}
    right = tiny_study(tmp_path / "right.yaml", networks={"unetr2d": {}}, data=data, **SHORT)
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
    assert vitrim("data", "phantom", "cardiac", "-o", folder, "--layout", "emidec", "--cases", 2) == 0
    assert vitrim("data", "check", "emidec", folder, "--out", tmp_path / "found.json") == 0
    assert "2 cases" in capsys.readouterr().out
    assert vitrim("data", "phantom", "cardiac", "-o", folder, "--cases", 2) == 2
    assert "exists" in capsys.readouterr().err


def test_a_path_that_cannot_be_is_one_line(tmp_path, capsys, monkeypatch):
    long = "a" * 300
    (tmp_path / "file").write_text("")
    for path in (tmp_path / long, tmp_path / "file" / "below"):
        for command in (
            ("predict", path, path, "-o", tmp_path / "out"),
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
    assert vitrim("data", "phantom", "cardiac", "-o", "phantom", "--cases", 2) == 2
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


def all_commands() -> dict[str, Any]:
    """Every command by its whole name."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        for part, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {part}")
        if not hasattr(command, "commands"):
            found[name] = command

    walk(typer.main.get_command(app), "vitrim")
    return found


COMMANDS = all_commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_ends_with_an_example_that_can_be_typed(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert vitrim(*name.split()[1:], "--help") == 0
    examples = [line.strip() for line in capsys.readouterr().out.splitlines() if "Example: " in line]
    assert examples
    for example in examples:
        typed = example.removeprefix("Example: ")
        assert typed.startswith(f"{name} ")
        COMMANDS[name].make_context(name, shlex.split(typed)[len(name.split()) :])


def documented_commands() -> list[str]:
    """Every command line that stands alone in README, docs, examples and presets."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.yaml")]
    found = (re.findall(r"^(?:    |#   )(vitrim .*)$", page.read_text(encoding="utf-8"), re.M) for page in pages)
    return sorted({line for lines in found for line in lines})


@pytest.mark.parametrize("line", documented_commands())
def test_every_command_of_the_documentation_can_be_typed(line):
    """A synopsis, with its optional parts in brackets, names options that exist."""
    name = next(name for name in sorted(COMMANDS, reverse=True) if f"{line} ".startswith(f"{name} "))
    command = COMMANDS[name]
    if "[" in line:
        known = {opt for option in command.params for opt in option.opts}
        assert set(re.findall(r"--[\w-]+", line)) <= known
    else:
        command.make_context(name, shlex.split(line, comments=True)[len(name.split()) :])


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("study", [names.RuleName, names.NetworkName, names.DecoderForm]),
        ("train", [names.NetworkName]),
        ("attention", [names.DecidingMeasure, names.Head]),
        ("compress", [names.Criterion, names.Recovery, names.DecoderForm]),
        ("evaluate", [names.CaseGroup]),
        ("predict", [names.Precision]),
        ("data check", [names.LayoutName]),
        ("data phantom", [names.PhantomName, names.PhantomLayout]),
    ],
)
def test_the_help_lists_every_choice_unbroken(command, choices, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert vitrim(*command.split(), "--help") == 0
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert {name for literal in choices for name in get_args(literal)} <= words


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"vitrim push"}))
def test_every_command_that_writes_files_takes_their_place_as_out(name):
    (out,) = [option for option in COMMANDS[name].params if option.name == "out"]
    assert out.opts == ["--out", "-o"]


def test_the_help_names_every_preset(capsys):
    assert vitrim("study", "--help") == 0
    assert set(presets()) <= set(re.findall(r"[\w-]+", capsys.readouterr().out))


def test_vitrim_alone_says_where_to_begin(capsys):
    assert vitrim() == 0
    said = capsys.readouterr().out
    own = ("vitrim study new --data DIR", "vitrim study STUDY.yaml --data DIR")
    for first in ("vitrim study demo", *own, "vitrim compress CHECKPOINT"):
        assert first in said
    assert len(said.splitlines()) == 6


def test_a_shell_completes_commands_and_choices(capsys, monkeypatch):
    monkeypatch.setenv("_VITRIM_COMPLETE", "complete_bash")
    for typed, offered in (("vitrim pre", ["predict"]), ("vitrim attention x --head m", ["max", "mean"])):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        assert vitrim() == 0
        assert sorted(capsys.readouterr().out.split()) == offered


def test_checking_data_writes_nothing_unless_asked(tiny_data, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert vitrim("data", "check", "decathlon", tiny_data) == 0
    assert not list(empty.iterdir())
    assert vitrim("data", "check", "decathlon", tiny_data, "-o", "found.json") == 0
    assert [path.name for path in empty.iterdir()] == ["found.json"]


def test_quiet_leaves_out_progress_and_nothing_else(tiny_data, capsys):
    assert vitrim("data", "check", "decathlon", tiny_data) == 0
    loud = capsys.readouterr().out.splitlines()
    assert vitrim("--quiet", "data", "check", "decathlon", tiny_data) == 0
    assert capsys.readouterr().out.splitlines() == loud[1:]
    assert loud[0].strip().startswith("check 8 cases")


def test_verbose_says_what_is_read_and_written_on_standard_error(tiny_data, tmp_path):
    name = "case_004.nii.gz"
    (tiny_data / "imagesTr" / name).rename(tiny_data / "imagesTr/\x1b[31mred.nii.gz")
    content = json.loads((tiny_data / "dataset.json").read_text())
    for entry in content["training"]:
        entry["image"] = entry["image"].replace(name, "\x1b[31mred.nii.gz")
    (tiny_data / "dataset.json").write_text(json.dumps(content))
    file = tmp_path / "found.json"
    command = [
        sys.executable,
        "-c",
        "import vitrim.cli; vitrim.cli.main()",
        "data",
        "check",
        "decathlon",
        tiny_data,
        "-o",
        file,
        "--verbose",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    lines = done.stderr.splitlines()
    assert "version" in lines[0]
    assert "64×64×4 voxels of 1.5×1.5×5 mm" in done.stderr
    assert f"wrote {file}" in done.stderr
    assert "MiB of memory" in lines[-1]
    assert "\x1b" not in done.stderr
    assert "vitrim.data" not in done.stdout


def test_general_options_stand_before_or_after_the_command(tiny_data, capsys):
    assert vitrim("data", "check", "decathlon", tiny_data, "--quiet") == 0
    after = capsys.readouterr().out
    assert vitrim("-q", "data", "check", "decathlon", tiny_data) == 0
    assert capsys.readouterr().out == after
    assert "check 8 cases" not in after
    with pytest.raises(DataError):
        vitrim("data", "check", "decathlon", tiny_data / "nothing", "--debug")


def test_json_is_all_that_data_check_prints_on_standard_output(tiny_data, tmp_path, capsys):
    rewrite(tiny_data / "imagesTr/case_004.nii.gz", put(np.nan))
    file = tmp_path / "found.json"
    assert vitrim("data", "check", "decathlon", tiny_data, "--json", "--out", file) == 2
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(file.read_text())
    assert "case_004" in printed["errors"][0]


def test_json_of_compress_and_evaluate_is_what_their_files_hold(checkpoint, tiny_data_once, tmp_path, capsys):
    small, out = tmp_path / "small", tmp_path / "compared"
    assert vitrim("compress", checkpoint, "--depth", 1, "-o", small, "--json") == 0
    stored = json.loads((small / "compression.json").read_text())
    assert json.loads(capsys.readouterr().out) == {key: stored[key] for key in stored if key != "checkpoint"}
    arguments = ("--data", tiny_data_once, "--cases", "all", "--against", checkpoint, "-o", out, "--json")
    assert vitrim("evaluate", small, *arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["comparison"] == json.loads((out / "comparison.json").read_text())
    stored = pd.read_csv(out / "summary.csv")
    assert [row["class"] for row in printed["summary"]] == list(stored["class"])
    assert [row["dice"] for row in printed["summary"]] == pytest.approx(list(stored["dice"]), abs=1e-6)


@pytest.mark.parametrize("wrong", ["two thirds", "2/", "1/0", "nan", "1e999999999", "-1/3"])
def test_a_threshold_that_is_no_number_is_refused(wrong, checkpoint, tiny_data_once, tmp_path, capsys):
    out = tmp_path / "attention"
    status = vitrim("attention", checkpoint, "--data", tiny_data_once, "--out", out, f"--threshold={wrong}")
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert "threshold" in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
