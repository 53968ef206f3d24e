"""A study that is killed at any moment resumes with the same command and ends with the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.processes import vitrim_process, wait_for
from tests.support import SHORT, tiny_study, vitrim, write_tiny_data
from vitrim.data.split import Split
from vitrim.files import read_arrays, read_table

SAME = ("results.csv", "trials.csv", "cases.csv", "history.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, a study of two short trainings, and its results without interruption."""
    folder = tmp_path_factory.mktemp("killed")
    write_tiny_data(folder / "data")
    training = {"steps": 12, "batch_size": 4, "learning_rate": 1e-3, "schedule": "cosine"}
    training |= {"augment": "light", "checkpoint": "best"}
    data = {"image_size": 64, "validation": 3, "tuning": 2, "train": 2}
    tiny_study(
        folder / "tiny.yaml", data=data, networks={"unetr2d": {"depths": [3]}}, training=training,
        attention=SHORT["attention"], tries=0,
    )  # fmt: skip
    assert finish(folder, "whole") == 0
    return folder


def start(folder: Path, out: str):
    return vitrim_process("study", folder / "tiny.yaml", "--data", folder / "data", "--out", folder / out)


def finish(folder: Path, out: str) -> int | None:
    process = start(folder, out)
    process.join()
    return process.exitcode


def check_same(folder: Path, out: str) -> None:
    for name in SAME:
        assert (folder / out / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    assert not (folder / out / "unfinished").exists()
    left = [path for path in (folder / out).rglob("*.part") if "cache" not in path.parts]
    assert not left


def kill_at_random(folder: Path, out: str, kills: int, longest: float, seed: int) -> int:
    """Start the study `kills` times and kill it after a random time each; return how often that succeeded."""
    moments = random.Random(seed)
    killed = 0
    for _ in range(kills):
        process = start(folder, out)
        process.join(moments.uniform(0.1, longest))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    return killed


def test_killed_at_random_moments_it_ends_with_the_same_bytes(place):
    assert kill_at_random(place, "random", kills=5, longest=3.5, seed=1) >= 3
    assert finish(place, "random") == 0
    check_same(place, "random")


def test_the_report_shows_the_augmented_slices_and_the_loss_on_tuning_cases(place):
    whole = place / "whole"
    stored = read_arrays(whole / "augmented.npz")
    train = Split.load(whole / "split.json").train
    assert set(stored["case"]) == set(train)
    assert stored["changed_image"].shape == (2, 4, 64, 64)
    assert any((image != stored["image"][0]).any() for image in stored["changed_image"][0])
    for before, after in zip(stored["label"], stored["changed_label"], strict=True):
        assert all(set(np.unique(label)) == set(np.unique(before)) for label in after)
    measured = read_table(whole / "history.csv").dropna(subset="tuning_loss")
    assert all(part["step"].tolist() == [3, 6, 9, 12] for _, part in measured.groupby("blocks"))
    assert {12, 3} <= set(measured["blocks"])
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "Training slices, changed at random" in page
    assert "With dots: on tuning cases" in page


@pytest.mark.slow
def test_killed_many_times_at_random_moments_it_ends_with_the_same_bytes(place):
    for seed in range(5):
        kill_at_random(place, f"often{seed}", kills=12, longest=4.0, seed=seed)
        assert finish(place, f"often{seed}") == 0
        check_same(place, f"often{seed}")


def test_finished_trainings_are_kept_and_the_unfinished_one_goes_on(place):
    out = place / "training"
    shutil.copytree(place / "whole", out)
    lost = next((out / "trials").glob("unetr2d-3-*"))
    kept = next((out / "trials").glob("unetr2d-12-*"))
    stamp = kept.stat().st_mtime_ns
    shutil.rmtree(lost)
    process = start(place, "training")
    state = out / "unfinished" / lost.name / "state.ckpt"
    wait_for(state.is_file)
    process.kill()
    process.join()
    assert state.is_file()
    assert finish(place, "training") == 0
    assert kept.stat().st_mtime_ns == stamp
    check_same(place, "training")


def test_two_processes_never_run_one_study_and_anyone_may_ask_where_it_is(place, capfd):
    study = ("study", place / "tiny.yaml", "--data", place / "data", "--out", place / "two")
    first = start(place, "two")
    try:
        wait_for(lambda: list(place.glob("two/unfinished/*/progress.json")))
        os.kill(first.pid, signal.SIGSTOP)  # it does not go on while it is asked
        assert vitrim(*study, "--status") == 0
        said = capfd.readouterr().out
        assert f"process {first.pid}" in said
        assert "epoch" in said
        assert vitrim(*study) == 2
        error = capfd.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        assert f"process {first.pid}" in error
    finally:
        first.kill()
        first.join()
    assert vitrim(*study, "--status") == 0
    said = capfd.readouterr().out
    assert "no process runs a study" in said
    assert "0 of" in said


def test_an_interrupt_ends_in_one_line_that_says_how_to_go_on(place):
    process = vitrim_process(
        "study", place / "tiny.yaml", "--data", place / "data", "--out", place / "stopped", stderr=place / "said"
    )
    wait_for(lambda: list(place.glob("stopped/unfinished/*/state.ckpt")))
    os.kill(process.pid, signal.SIGINT)
    process.join()
    error = (place / "said").read_text()
    assert process.exitcode == 130
    assert "the same command continues" in error
    assert "Traceback" not in error
