"""A failed training is recorded, the others continue, and the exit status and one line report it."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import vitrim.studies.trial as trial_module
from tests.support import SHORT, tiny_study, vitrim


@pytest.fixture
def broken(monkeypatch):
    """A set of depths whose trainings fail, as if the GPU's memory were too small; clear the set to stop this."""
    depths: set[int] = set()
    real = trial_module.train_network

    def train(network, *arguments, **options):
        if network.depth in depths:
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
        return real(network, *arguments, **options)

    monkeypatch.setattr(trial_module, "train_network", train)
    return depths


def run(tmp_path, data, capsys, **changes) -> tuple[int, str]:
    file = tiny_study(
        tmp_path / "tiny.yaml",
        networks={"unetr2d": {"depths": [3]}},
        width=0.25,  # with this network and seed, a depth is tried
        **SHORT,
        **changes,
    )
    status = vitrim("study", file, "--data", data, "--out", tmp_path / "out")
    return status, capsys.readouterr().err.strip()


def test_what_an_interrupt_breaks_is_no_failure(monkeypatch, tiny_data_once, tmp_path, capsys):
    """An interrupt that arrives inside a library can come out as an error of that library."""

    def train(*arguments, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("trying to pop from empty mode stack")  # noqa: B904

    monkeypatch.setattr(trial_module, "train_network", train)
    status, error = run(tmp_path, tiny_data_once, capsys)
    assert status == 130
    assert error == f"vitrim: stopped; the same command continues with what is in {tmp_path / 'out'}"
    assert not (tmp_path / "out" / "failed").exists()


def test_one_failed_training_leaves_the_others_and_is_tried_again(broken, tiny_data_once, tmp_path, capsys):
    broken.add(3)
    status, error = run(tmp_path, tiny_data_once, capsys)
    assert status == 1
    assert len(error.splitlines()) == 1
    assert "unetr2d, 3 blocks: RuntimeError: CUDA out of memory." in error
    out = tmp_path / "out"
    assert pd.read_csv(out / "results.csv")["blocks"].tolist() == [12, 1]
    assert (out / "report.html").is_file()
    (record,) = (out / "failed").iterdir()
    stored = json.loads(record.read_text())
    assert record.stem == stored["trial"]
    assert "Traceback" in stored["traceback"]
    broken.clear()
    status, error = run(tmp_path, tiny_data_once, capsys)
    assert (status, error) == (0, "")
    assert pd.read_csv(out / "results.csv")["blocks"].tolist() == [12, 3, 1]
    assert not (out / "failed").exists()


def test_without_its_full_network_nothing_is_compared(broken, tiny_data_once, tmp_path, capsys):
    broken.add(12)
    status, error = run(tmp_path, tiny_data_once, capsys)
    assert status == 1
    assert "unetr2d, 12 blocks" in error
    out = tmp_path / "out"
    assert not (out / "results.csv").exists()
    assert not list((out / "trials").glob("unetr2d-3-*"))


def test_a_loss_that_is_not_finite_is_a_failure_that_says_what_to_do(tiny_data_once, tmp_path, capsys):
    file = tiny_study(tmp_path / "tiny.yaml", training={"steps": 6, "batch_size": 4, "learning_rate": 1e18})
    assert vitrim("study", file, "--data", tiny_data_once, "--out", tmp_path / "out") == 1
    assert "lower training.learning_rate" in capsys.readouterr().err
