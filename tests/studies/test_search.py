"""A study looks, proposes, tries on tuning cases, and confirms once on held-out cases."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support import tiny_study, vitrim, write_tiny_data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that learns the tiny task, with 8 tuning and 8 held-out cases."""
    folder = tmp_path_factory.mktemp("search")
    data = write_tiny_data(folder / "data", cases=24, slices=2)
    file = tiny_study(
        folder / "tiny.yaml",
        data={"image_size": 64, "validation": 8, "tuning": 8},
        networks={"unetr2d": {}},
        training={"steps": 30, "batch_size": 8, "learning_rate": 4e-3, "schedule": "cosine"},
    )
    assert vitrim("study", file, "--data", data, "--out", folder / "out") == 0
    return folder / "out"


@pytest.fixture(scope="module")
def decision(run: Path) -> dict:
    return json.loads((run / "networks/unetr2d/decision.json").read_text())


def test_each_group_of_cases_has_its_own_task(run: Path, decision: dict) -> None:
    split = json.loads((run / "split.json").read_text())
    folder = run / "networks/unetr2d"
    exchange = pd.read_csv(folder / "exchange.csv")
    assert set(exchange["case"]) == set(split["tuning"])
    assert set(json.loads((folder / "attention_rule.json").read_text())["cases"]) <= set(split["train"])
    for trial in (run / "trials").iterdir():
        assert set(pd.read_csv(trial / "tuning.csv")["case"]) == set(split["tuning"])
        assert set(pd.read_csv(trial / "cases.csv")["case"]) == set(split["validation"])
    assert [result["cases"] for result in decision["tried"]] == [8] * len(decision["tried"])
    assert decision["proposed_on"] == "tuning"


def test_what_is_proposed_is_trained_and_what_is_chosen_is_confirmed(run: Path, decision: dict) -> None:
    results = pd.read_csv(run / "results.csv")
    tried = {result["depth"]: result["verdicts"]["5"] for result in decision["tried"]}
    assert decision["proposed"] in tried
    assert set(results["blocks"]) == {12, *tried}
    if decision["verdict"] == "not shown":
        assert decision["depth"] == 12
        assert "decided" not in set(results["role"])
    else:
        assert decision["verdict"] == "enough"
        assert tried[decision["depth"]] == "not worse"
        row = results[results["role"] == "decided"].iloc[0]
        assert (row["blocks"], row["verdict_5"]) == (decision["depth"], "not worse")
        assert decision["confirmed"]["percent"] == pytest.approx(row["dice_change_percent"], abs=1e-4)
        assert decision["confirmed"]["cases"] == 8


def test_the_report_leads_with_the_verdict(run: Path, decision: dict) -> None:
    text = (run / "report.md").read_text(encoding="utf-8").replace("\\", "")
    headline = decision["in_words"].split(". ")[0]
    assert headline in text
    assert "needs" not in text.split("## Every network")[0] or decision["verdict"] == "needs"


def test_the_verdict_is_made_again_from_the_stored_tables(run: Path, decision: dict) -> None:
    path = run / "networks/unetr2d/decision.json"
    before = path.read_bytes()
    assert vitrim("report", run) == 0
    again = json.loads(path.read_text())
    assert again["verdict"] == decision["verdict"]
    assert path.read_bytes() == before
    path.write_text(json.dumps({**decision, "depth": 5}))
    assert vitrim("report", run) == 0
    assert json.loads(path.read_text())["depth"] == 5
    assert "5 of 12 blocks were set by hand" in (run / "report.md").read_text(encoding="utf-8")
    path.write_bytes(before)
