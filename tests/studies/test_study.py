"""A small but complete study: all results exist, and a second run gives the same results."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vitrim
from tests.support import tiny_study
from tests.support import vitrim as vitrim_command
from vitrim.commands.report import write_report
from vitrim.commands.train import train
from vitrim.config.reading import load_study
from vitrim.progress import Reporter
from vitrim.studies.plan import Plan
from vitrim.studies.runner import run_study
from vitrim.studies.study_data import open_study
from vitrim.studies.trial import Trial


@pytest.fixture(scope="module")
def run(finished_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tiny_study(folder / "tiny.yaml")
    return shutil.copytree(finished_study, folder / "out")


def test_the_table_has_the_full_network_the_decided_depth_and_the_fixed_ones(run):
    table = pd.read_csv(run / "results.csv")
    decision = json.loads((run / "networks/transunet/decision.json").read_text())
    assert table["blocks"].tolist() == sorted({12, 3, decision["proposed"]}, reverse=True)
    assert decision["verdict"] == "not shown"  # three held-out cases give no verdict
    assert decision["depth"] == 12
    assert table["role"].iloc[0] == "full"
    full = table.iloc[0]
    for _, row in table.iloc[1:].iterrows():
        saved = 100 * (full["parameters"] - row["parameters"]) / full["parameters"]
        assert row["parameters_saved_percent"] == pytest.approx(saved, abs=1e-5)
        change = 100 * (row["average_dice"] - full["average_dice"]) / full["average_dice"]
        assert not math.isnan(change)
        assert row["dice_change_percent"] == pytest.approx(change, abs=0.05)


def test_the_decision_says_in_which_order_depths_were_trained(run):
    decision = json.loads((run / "networks/transunet/decision.json").read_text())
    proposed = decision["proposed"]
    assert decision["order"] == ([] if proposed in (3, 12) else [proposed])


def test_the_examples_are_three_cases_of_each_network_with_all_its_predictions(run):
    depths = pd.read_csv(run / "results.csv")["blocks"]
    with np.load(run / "examples.npz") as stored:
        assert stored["network"].tolist() == ["transunet"] * 3
        assert len(set(stored["case"])) == 3
        assert all(stored[f"prediction_transunet_{depth}"].shape == stored["reference"].shape for depth in depths)


def test_every_average_can_be_made_again_from_the_cases(run):
    table, cases = pd.read_csv(run / "results.csv"), pd.read_csv(run / "cases.csv")
    for _, row in table.iterrows():
        own = cases[(cases["network"] == row["network"]) & (cases["blocks"] == row["blocks"])]
        assert own.groupby("class")["dice"].mean().mean() == pytest.approx(row["average_dice"], abs=2e-6)


def test_a_trial_is_a_checkpoint_that_rebuilds_itself(run):
    folders = list((run / "trials").iterdir())
    assert len(folders) >= 2
    for folder in folders:
        network = vitrim.load_model(folder)
        assert not network.training
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 3, 64, 64)


def test_cases_are_split_by_case(run):
    split = json.loads((run / "split.json").read_text())
    assert len(split["validation"]) == 3
    assert len(split["train"]) == 2
    assert not set(split["train"]) & set(split["validation"])
    rule = json.loads((run / "networks/transunet/attention_rule.json").read_text())
    assert set(rule["cases"]) <= set(split["train"])


def test_the_report_is_written(run):
    paths = write_report(run)
    assert {path.name for path in paths} >= {"report.md", "report.html"}
    assert "TransUNet" in (run / "report.md").read_text()


def test_the_same_study_again_returns_what_is_there(run, tiny_data_once, capsys):
    study = load_study(str(run.parent / "tiny.yaml"))
    before = (run / "results.csv").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in (run / "trials").rglob("*")}
    run_study(study, tiny_data_once, run, Reporter())
    assert (run / "results.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (run / "trials").rglob("*")} == stamps


def test_figures_are_drawn_of_the_first_seed_alone_unless_all_are_asked_for(finished_study, tmp_path):
    copy = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    for kind, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        figures = [path for path in (copy / "networks/transunet/figures").iterdir() if path.suffix == kind]
        assert len(figures) > 8
        assert all(path.read_bytes().startswith(start) for path in figures)
    other = copy / "networks/transunet-seed1-fold0"
    shutil.copytree(copy / "networks/transunet", other, ignore=shutil.ignore_patterns("figures"))
    assert vitrim_command("report", copy) == 0
    assert not (other / "figures").exists()
    assert vitrim_command("report", copy, "--all-figures") == 0
    assert (other / "figures/globality.pdf").is_file()


def test_the_same_study_elsewhere_gives_the_same_bytes(run, tiny_data_once, tmp_path):
    study = load_study(str(run.parent / "tiny.yaml"))
    again = run_study(study, tiny_data_once, tmp_path / "again", Reporter())
    for name in ("results.csv", "cases.csv", "history.csv"):
        assert (again / name).read_bytes() == (run / name).read_bytes()


def test_a_study_that_lost_a_trial_makes_that_one_again_and_ends_the_same(run, tiny_data_once, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(run, copy)
    before = (run / "results.csv").read_bytes()
    lost = next(path for path in (copy / "trials").iterdir() if path.name.startswith("transunet-3-"))
    shutil.rmtree(lost)
    (copy / "results.csv").unlink()
    run_study(load_study(str(run.parent / "tiny.yaml")), tiny_data_once, copy, Reporter())
    assert lost.is_dir()
    assert (copy / "results.csv").read_bytes() == before


def test_a_network_trained_alone_is_the_studys(run, tiny_data_once, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    study, out = tiny_study(tmp_path / "tiny.yaml"), tmp_path / "runs/small"
    arguments = ("train", study, "--data", tiny_data_once, "--depth", 3, "--out", out)
    assert vitrim_command(*arguments, "--network", "unetr2d") == 2
    assert "no 'unetr2d'; it has transunet" in capsys.readouterr().err
    assert vitrim_command(*arguments) == 0
    assert "held-out cases" in capsys.readouterr().out
    (trial,) = (run / "trials").glob("transunet-3-*")
    assert {path.name for path in out.iterdir()} == {path.name for path in trial.iterdir()}
    for name in ("model.safetensors", "cases.csv", "history.csv", "trial.json"):
        assert (out / name).read_bytes() == (trial / name).read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    assert vitrim_command(*arguments) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"seeds": [3, 4]}, {"data": {"image_size": 64, "folds": 3}}])
def test_a_network_trained_alone_is_judged_on_the_cases_of_the_studys_first(
    changes, tiny_data_once, tmp_path, monkeypatch
):
    """It uses the first seed and the first fold, so it never trains on the held-out cases of that fold."""
    study = load_study(str(tiny_study(tmp_path / "tiny.yaml", **changes)))
    with open_study(study, tiny_data_once, tmp_path / "whole", Reporter()) as prepared:
        plan = Plan(study, prepared, {"transunet": "random"})
        expected = plan.trial(plan.run_keys[0], 3)
    train(study, tmp_path / "out", network="transunet", depth=3, data=tiny_data_once)
    found = Trial.model_validate_json((tmp_path / "out/trial.json").read_text())
    assert found.split == expected.split
    assert (found.seed, found.fold) == (expected.seed, expected.fold)


def test_a_network_that_begins_with_the_trained_full_one_is_not_trained_alone(tiny_data_once, tmp_path, capsys):
    study, out = tiny_study(tmp_path / "tiny.yaml", truncated_from="inherit"), tmp_path / "small"
    assert vitrim_command("train", study, "--data", tiny_data_once, "--depth", 3, "--out", out) == 2
    assert "vitrim compress" in capsys.readouterr().err
    assert not out.exists()
