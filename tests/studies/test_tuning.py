"""Tuning cases, which a study sets aside so that a depth can be chosen by accuracy later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support import tiny_study, vitrim
from vitrim.config.reading import load_study
from vitrim.data.split import Split
from vitrim.progress import Reporter
from vitrim.studies.plan import Plan
from vitrim.studies.study_data import prepare_study


def study_file(folder: Path, **data: object) -> Path:
    return tiny_study(folder / "tiny.yaml", data={"image_size": 64, "validation": 2, **data})


def test_a_study_keeps_tuning_cases_out_of_training_and_says_so(tiny_data_once, tmp_path, capsys):
    study = load_study(str(study_file(tmp_path, tuning=2)))
    prepared = prepare_study(study, tiny_data_once, tmp_path / "out", Reporter())
    said = capsys.readouterr().out
    assert "4 training, 2 tuning and 2 validation cases" in said
    assert "with fewer than 8 tuning cases no depth can be chosen by accuracy" in said
    prepared.save_split(tmp_path / "split.json")
    split = Split.load(tmp_path / "split.json")
    assert set(prepared.data.cache.ids) == set(split.ids)
    plan = Plan(study, prepared, {"transunet": "random"})
    stored = json.loads(plan.full(plan.run_keys[0]).model_dump_json())
    assert stored["split"] == json.loads((tmp_path / "split.json").read_text())
    assert len(stored["split"]["tuning"]) == 2


def test_the_best_checkpoint_without_tuning_cases_is_refused(tiny_data_once, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--data", tiny_data_once, "--out", out, "--set", "training.checkpoint=best")
    assert vitrim("study", study_file(tmp_path), *options) == 2
    assert "training.checkpoint: best needs tuning cases" in capsys.readouterr().err
    assert vitrim("study", study_file(tmp_path), *options[:4], "--set", "training.augment=[{RandFlip: {pro: 1}}]") == 2
    assert "training.augment.0: RandFlip" in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_tuning_case_stops_the_study(tiny_data_once, tmp_path, capsys):
    data = Path(shutil.copytree(tiny_data_once, tmp_path / "data"))
    file = study_file(tmp_path, tuning=2)
    study = load_study(str(file))
    (damaged, *_) = prepare_study(study, data, tmp_path / "before", Reporter()).splits[0].tuning
    (data / "imagesTr" / f"{damaged}.nii.gz").write_bytes(b"broken")
    assert vitrim("study", file, "--data", data, "--out", tmp_path / "out") == 2
    assert damaged in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "words", "status"),
    [
        ({"tuning": 2}, "split        4 training, 2 tuning and 2 validation cases", 0),
        ({}, "split        6 training and 2 validation cases", 0),
        ({"folds": 4}, "split        6 training and 2 validation cases", 0),
        ({"tuning": 6}, "error: the study tiny cannot divide these cases: too few cases", 2),
    ],
)
def test_checking_data_for_a_study_counts_its_sides(data, words, status, tiny_data_once, tmp_path, capsys):
    options = (study_file(tmp_path, **data), tiny_data_once, "--out", tmp_path / "found.json")
    assert vitrim("data", "check", *options) == status
    said = capsys.readouterr().out
    assert words in said
    assert ("no problem that would stop a study" in said) == (status == 0)


def test_a_preset_may_stand_for_its_layout_alone(tmp_path, capsys):
    assert vitrim("data", "phantom", "cardiac", "-o", tmp_path / "data", "--layout", "emidec", "--cases", 2) == 0
    assert vitrim("data", "check", "emidec", tmp_path / "data", "--out", tmp_path / "found.json") == 0
    assert "warning: the study emidec cannot divide these cases" in capsys.readouterr().out
