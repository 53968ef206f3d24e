"""`vitrim evaluate`: tables with intervals, and one network compared with another."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support import make_checkpoint, vitrim, write_tiny_data


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    held_out = [f"case_{n:03d}" for n in (1, 4, 5, 6, 7)]
    split = {"train": [f"case_{n:03d}" for n in (0, 2, 3)], "validation": held_out}
    return make_checkpoint(tmp_path / "network", split=split)


def test_the_summary_is_the_mean_of_the_case_table(checkpoint, tiny_data_once, tmp_path, capsys):
    assert vitrim("evaluate", checkpoint, "--data", tiny_data_once, "--out", tmp_path / "found") == 0
    cases = pd.read_csv(tmp_path / "found/cases.csv")
    summary = pd.read_csv(tmp_path / "found/summary.csv").set_index("class")
    assert sorted(cases["case"].unique()) == [f"case_{n:03d}" for n in (1, 4, 5, 6, 7)]
    assert set(cases["role"]) == {"validation"}
    for name, part in cases.groupby("class"):
        assert summary.loc[name, "dice"] == pytest.approx(part["dice"].mean(), abs=1e-5)
        assert summary.loc[name, "surface_dice"] == pytest.approx(part["surface_dice"].mean(), abs=1e-5)
        assert summary.loc[name, "dice_low"] <= summary.loc[name, "dice"] <= summary.loc[name, "dice_high"]
    assert summary.loc["average", "dice"] == pytest.approx(summary.loc[["bright", "dark"], "dice"].mean(), abs=1e-5)
    assert "surface Dice" in capsys.readouterr().out


def test_a_network_is_not_worse_than_itself(checkpoint, tiny_data_once, tmp_path, capsys):
    out = tmp_path / "found"
    options = ("--data", tiny_data_once, "--out", out, "--against", checkpoint, "--cases", "all")
    assert vitrim("evaluate", checkpoint, *options) == 0
    said = json.loads((out / "comparison.json").read_text())
    assert said["dice_change_percent"] == 0
    assert said["verdicts"] == {"5 %": "not worse", "1 %": "not worse"}
    pairs = pd.read_csv(out / "comparison.csv")
    assert (pairs["dice"] == pairs["dice_other"]).all()
    assert "not worse at a margin of 1 %" in capsys.readouterr().out


def test_training_cases_are_named_as_flattering(checkpoint, tiny_data_once, tmp_path, capsys):
    options = ("--data", tiny_data_once, "--out", tmp_path / "found", "--cases", "all")
    assert vitrim("evaluate", checkpoint, *options) == 0
    assert "trained on 3 of these 8 cases" in capsys.readouterr().out
    roles = pd.read_csv(tmp_path / "found/cases.csv").groupby("case")["role"].first()
    assert roles.value_counts().to_dict() == {"validation": 5, "train": 3}


def test_classes_that_differ_from_the_datas_are_refused(tiny_data_once, tmp_path, capsys):
    other = make_checkpoint(tmp_path / "other", classes=4)
    assert vitrim("evaluate", other, "--data", tiny_data_once, "--out", tmp_path / "found") == 2
    error = capsys.readouterr().err.strip()
    assert "3 other" in error
    assert "cannot be compared" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "found").exists()


def test_the_same_number_of_classes_under_other_names_is_refused(checkpoint, tiny_data_once, tmp_path, capsys):
    content = json.loads((checkpoint / "preparation.json").read_text())
    content["classes"]["2"] = "kidney"
    (checkpoint / "preparation.json").write_text(json.dumps(content))
    assert vitrim("evaluate", checkpoint, "--data", tiny_data_once, "--out", tmp_path / "found") == 2
    assert "2 kidney" in capsys.readouterr().err


def test_images_with_other_channels_are_refused(checkpoint, tmp_path, capsys):
    folder = write_tiny_data(tmp_path / "data")
    content = json.loads((folder / "dataset.json").read_text())
    content["modality"] = {"0": "T1", "1": "T2"}
    (folder / "dataset.json").write_text(json.dumps(content))
    assert vitrim("evaluate", checkpoint, "--data", folder, "--out", tmp_path / "found") == 2
    assert "1 channel(s)" in capsys.readouterr().err


def test_a_network_of_unknown_past_is_evaluated_on_everything(tiny_data_once, tmp_path):
    network = make_checkpoint(tmp_path / "network")
    assert vitrim("evaluate", network, "--data", tiny_data_once, "--out", tmp_path / "found") == 0
    assert pd.read_csv(tmp_path / "found/cases.csv")["case"].nunique() == 8
    options = ("--data", tiny_data_once, "--out", tmp_path / "more", "--cases", "validation")
    assert vitrim("evaluate", network, *options) == 2
