"""Every command that writes, on a full disk and killed: one line, nothing half-written, and the next run is whole."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from tests.campaign.inputs import Whole

QUICK = ("data check",)
"""Commands that are tried on a full disk in the default tests; all of them in the slow ones."""

ROOM = 400
"""Bytes that a file may have on the full disk."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    with contextlib.redirect_stdout(io.StringIO()):
        return Whole.make(tmp_path_factory.mktemp("whole"))


def commands(whole: Whole, place: Path) -> dict[str, tuple[object, ...]]:
    """Every command that writes, with what it needs; it writes into `place`."""
    network, data = whole.network, ("--data", whole.data)
    return {
        "predict": (
            "predict",
            network,
            whole.image,
            "-o",
            place / "out.nii.gz",
            "--labels",
            "--preview",
            "--probabilities",
        ),
        "evaluate": ("evaluate", network, *data, "--out", place / "out", "--cases", "all"),
        "compress": ("compress", network, *data, "--depth", 1, "--out", place / "out"),
        "attention": ("attention", network, *data, "--out", place / "out"),
        "export": ("export", network, "-o", place / "out.onnx"),
        "data check": ("data", "check", "decathlon", whole.data, "--out", place / "check.json"),
        "data phantom": ("data", "phantom", "cardiac", "-o", place / "phantom", "--cases", 2),
        "train": ("train", whole.study, *data, "--out", place / "out"),
        "report": ("report", place / "run"),
        "study": ("study", whole.study, *data, "--out", place / "out", "--tries", 0),
    }


def command_of(name: str, whole: Whole, place: Path) -> tuple[object, ...]:
    """The command `name`, with a copy of what it writes into."""
    if name == "report" and not (place / "run").exists():
        shutil.copytree(whole.run, place / "run")
    return commands(whole, place)[name]


NOWHERE = Path("no such folder")
NAMES = tuple(commands(Whole(*[NOWHERE] * 8), NOWHERE))
MARKED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def start(command: tuple[object, ...], room: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    return subprocess.Popen(
        [sys.executable, "-c", "from vitrim.cli import main; main()", *map(str, command)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def left_over(place: Path) -> list[str]:
    return [path.name for path in place.rglob(".*.part*")]


@pytest.mark.parametrize("name", MARKED)
def test_on_a_full_disk_a_command_ends_in_one_line_and_goes_on_when_there_is_room(name, whole, tmp_path):
    command = command_of(name, whole, tmp_path)
    process = start(command, ROOM)
    error = process.communicate(timeout=300)[1].strip()
    assert process.returncode in (1, 2), error
    assert "Traceback" not in error
    assert "fault of vitrim" not in error
    assert len(error.splitlines()) == 1
    assert not left_over(tmp_path)
    again = start(command)
    error = again.communicate(timeout=300)[1]
    assert again.returncode == 0, error


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_leaves_nothing_after_the_next_run(name, whole, tmp_path):
    command = command_of(name, whole, tmp_path)
    begin = time.monotonic()
    (tmp_path / "first").mkdir()
    assert start(command_of(name, whole, tmp_path / "first")).wait(timeout=300) == 0
    lasts = time.monotonic() - begin
    moments = random.Random(zlib.crc32(name.encode()))
    for _ in range(3):
        process = start(command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.4, 1.0) * lasts)
        process.kill()
        process.wait()
    again = start(command)
    error = again.communicate(timeout=300)[1]
    # Killed after the output was in its place, a command that makes a new folder finds it.
    assert again.returncode == 0 or "exists already" in error, error
    assert not left_over(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_is_asked_to_stop_leaves_nothing_at_once(name, whole, tmp_path):
    command = command_of(name, whole, tmp_path)
    (tmp_path / "first").mkdir()
    begin = time.monotonic()
    assert start(command_of(name, whole, tmp_path / "first")).wait(timeout=300) == 0
    lasts = time.monotonic() - begin
    moments = random.Random(zlib.crc32(name.encode()) + 1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        process = start(command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.5, 0.95) * lasts)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        assert "Traceback" not in error
        assert not left_over(tmp_path)
        if process.returncode == 0 or "exists already" in error:  # it was quicker than the signal
            return
        assert process.returncode in (128 + number, -number), error


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_after_a_command_is_done_prints_nothing(name):
    late = (
        "import atexit, os, signal, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # under nohup it is ignored
        f"atexit.register(lambda: (os.kill(os.getpid(), signal.{name}), time.sleep(5)))\n"
        "from vitrim.cli import main\nmain()"
    )
    run = subprocess.run([sys.executable, "-c", late, "--version"], capture_output=True, text=True, timeout=60)
    assert run.returncode == -getattr(signal, name)
    assert run.stdout.startswith("vitrim ")
    assert run.stderr == ""
