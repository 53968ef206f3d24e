"""A study takes the threads that other studies leave, and keeps their number when it continues."""

from __future__ import annotations

import json
import os
import subprocess
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from vitrim.config.schema import TrainConfig
from vitrim.progress import Reporter
from vitrim.studies import threads
from vitrim.studies.threads import study_threads

pytestmark = pytest.mark.skipif(os.name != "posix", reason="only POSIX systems tell whether a process runs")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Four cores of which torch takes four, and a registry of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"vitrim-{os.getuid()}"
    folder.mkdir(mode=0o700)
    yield folder
    torch.set_num_threads(before)


@pytest.fixture
def other():
    """Another process, which runs."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def write_entry(folder: Path, pid: int, count: int, cores: tuple[int, ...] = (0, 1, 2, 3)) -> Path:
    path = folder / f"{pid}.json"
    path.write_text(json.dumps({"threads": count, "cores": list(cores)}))
    return path


def counted(out: Path, training: TrainConfig | None = None) -> tuple[int, str]:
    """Number of threads inside, and what was said."""
    said = StringIO()
    with study_threads(training or TrainConfig(steps=1, device="cpu"), out, Reporter(Console(file=said, width=200))):
        found = torch.get_num_threads()
    assert torch.get_num_threads() == 4
    return found, said.getvalue()


def test_alone_a_study_takes_all_threads_and_says_nothing(registry, tmp_path):
    assert counted(tmp_path / "out") == (4, "")
    assert not list(registry.glob("*.json")), "what has ended is not counted"


@pytest.mark.parametrize(("taken", "left"), [(1, 3), (3, 1), (4, 1), (9, 1)])
def test_a_new_study_takes_what_others_leave_at_least_one(registry, other, tmp_path, taken, left):
    write_entry(registry, other, taken)
    found, said = counted(tmp_path / "out")
    assert found == left
    assert f"{left} of 4 threads" in said
    assert "OMP_NUM_THREADS" in said


def test_studies_that_ended_or_run_on_other_cores_or_are_damaged_do_not_count(registry, other, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone = write_entry(registry, ended.pid, 4)
    write_entry(registry, other, 4, cores=(4, 5))
    (registry / "strange.json").write_text("[")
    assert counted(tmp_path / "out") == (4, "")
    assert not gone.exists()


def test_a_study_that_continues_keeps_its_number(registry, other, tmp_path):
    out = tmp_path / "out"
    (out / "trials/one").mkdir(parents=True)
    (out / "trials/one/trial.json").write_text("{}")
    (out / "versions.json").write_text('{"threads": 2}')
    assert counted(out)[0] == 2, "although all are free"
    write_entry(registry, other, 4)
    assert counted(out)[0] == 2, "although none is free"
    (out / "versions.json").write_text('{"threads": 64}')
    assert counted(out)[0] == 4, "no more than this machine has"


def test_a_study_that_has_trained_nothing_chooses_again(registry, other, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "versions.json").write_text('{"threads": 2}')
    assert counted(out)[0] == 4


def test_what_the_user_set_holds_and_a_gpu_leaves_it_as_it_is(registry, other, tmp_path, monkeypatch):
    write_entry(registry, other, 4)
    assert counted(tmp_path / "out", TrainConfig(steps=1, device="gpu")) == (4, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert counted(tmp_path / "out") == (4, "")


def test_without_a_place_that_all_studies_see_a_study_runs_as_if_alone(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert counted(tmp_path / "out") == (4, "")
