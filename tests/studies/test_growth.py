"""A study grows in its folder: what is there and fits is used, what does not fit is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.support import SHORT, tiny_study, vitrim

NETWORKS = {"unetr2d": {"depths": [1]}}


@pytest.fixture(scope="module")
def small(tiny_data_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of one network at two depths, with one seed."""
    folder = tmp_path_factory.mktemp("growth")
    file = tiny_study(folder / "tiny.yaml", networks=NETWORKS, **SHORT)
    assert vitrim("study", file, "--data", tiny_data_once, "--out", folder / "out", "--tries", 0) == 0
    return folder / "out"


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: (path / "model.safetensors").stat().st_mtime_ns for path in (folder / "trials").iterdir()}


def again(small: Path, tmp_path: Path, data: Path, *options: object, **changes: object) -> tuple[int, Path]:
    out = Path(shutil.copytree(small, tmp_path / "out", copy_function=shutil.copy2))
    file = tiny_study(tmp_path / "tiny.yaml", **{"networks": NETWORKS, **SHORT, **changes})
    return vitrim("study", file, "--data", data, "--out", out, "--tries", 0, *options), out


@pytest.mark.parametrize(
    ("options", "more", "word"),
    [
        (("--seeds", "0,1"), 2, "seeds"),
        (("--depths", "1,2"), 1, "depths"),
        (("--noise-floor",), 1, "noise_floor"),
    ],
)
def test_what_was_trained_is_used_again(
    options: tuple[object, ...], more: int, word: str, small: Path, tiny_data_once: Path, tmp_path: Path
) -> None:
    status, out = again(small, tmp_path, tiny_data_once, *options)
    assert status == 0
    before, after = stamps(small), stamps(out)
    assert len(after) == len(before) + more
    assert {name: after[name] for name in before} == before
    record = json.loads((out / "study.json").read_text())
    assert [grown["differs_in"] for grown in record["grown"]] == [[word]]
    assert record["grown"][0]["from"]["seed"] == 0
    results = pd.read_csv(out / "results.csv")
    assert results["seeds"].iloc[0] == (2 if word == "seeds" else 1)
    if word == "noise_floor":
        assert results["role"].tolist() == ["full", "noise", "fixed"]
        assert vitrim("report", out) == 0
        pd.testing.assert_frame_equal(pd.read_csv(out / "results.csv"), results)


def test_attention_is_that_of_the_seed_that_comes_first(small: Path, tiny_data_once: Path, tmp_path: Path) -> None:
    status, out = again(small, tmp_path, tiny_data_once, "--seeds", "1,0")
    assert status == 0
    first = json.loads((out / "networks/unetr2d/trial.json").read_text())["trial"]
    assert json.loads((out / "trials" / first / "trial.json").read_text())["seed"] == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"training": {"steps": 3, "batch_size": 4}}, "training.steps"), ({"width": 0.5}, "width")],
)
def test_another_training_is_refused_by_name(
    changes: dict[str, object], word: str, small: Path, tiny_data_once: Path, tmp_path: Path, capsys
) -> None:
    status, out = again(small, tmp_path, tiny_data_once, **changes)
    assert status == 2
    assert f"it differs in {word}" in capsys.readouterr().err
    assert stamps(out) == stamps(small)


def test_the_rule_nested_trains_one_more_network_and_proposes_by_it(
    small: Path, tiny_data_once: Path, tmp_path: Path
) -> None:
    status, out = again(small, tmp_path, tiny_data_once, "--rule", "nested")
    assert status == 0
    assert len(stamps(out)) == len(stamps(small)) + 1
    decision = json.loads((out / "networks/unetr2d/decision.json").read_text())
    assert decision["rule"] == "nested"
    assert decision["proposed"] == decision["rules"]["nested"] or decision["reason"]
    (table,) = [pd.read_csv(path) for path in (out / "trials").glob("*/nested.csv")]
    assert set(table["depth"]) == set(range(1, 13))
    assert pd.read_csv(out / "results.csv")["blocks"].tolist() == [12, 1]
