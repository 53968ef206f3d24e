"""Threads of torch give way while other processes want the cores, and only then."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitrim import hardware
from vitrim.hardware import IdleThreads, sharing_cores, watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP and /proc are Linux's")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Tests compute with one thread each; here torch has two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(hardware, "PERIOD", 0.001)
    for name in hardware.SET_BY_USER:
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_openmp_gets_more_threads_than_cores_and_loses_them_again():
    torch.zeros(1 << 17).add_(1)  # torch's own team
    before, of_python, cores = threads(), threading.active_count(), len(os.sched_getaffinity(0))
    idle = IdleThreads(2)
    masters = threading.active_count() - of_python
    assert threads() - before == 2 * masters, "each has one thread of OpenMP beside it"
    assert 2 + masters > cores
    idle.end()
    wait_until(lambda: threads() == before)


def test_idle_threads_are_there_only_while_others_want_the_cores(monkeypatch):
    held: list[str] = []

    class Noted:
        def __init__(self, team: int) -> None:
            assert team == 3
            held.append("begin")

        def end(self) -> None:
            held.append("end")

    monkeypatch.setattr(hardware, "IdleThreads", Noted)
    wanting, done = [4], threading.Event()
    watcher = threading.Thread(target=watch, args=(done, 3, lambda: wanting[0], 4))
    watcher.start()
    time.sleep(0.1)
    assert held == [], "four threads on four cores: nobody else"
    wanting[0] = 8
    wait_until(lambda: held == ["begin"])
    wanting[0] = 4
    time.sleep(0.1)
    assert held == ["begin"], "as many as cores, although waiting threads sleep: others are still there"
    wanting[0] = 2
    wait_until(lambda: held == ["begin", "end"])
    wanting[0] = 8
    wait_until(lambda: held == ["begin", "end", "begin"])
    done.set()
    watcher.join()
    assert held == ["begin", "end", "begin", "end"]


def test_results_are_the_same_bits():
    torch.manual_seed(0)
    network, images = torch.nn.Conv2d(8, 8, 3, padding=1), torch.randn(4, 8, 32, 32)
    before = network(images)
    idle = IdleThreads(2)
    during = network(images)
    idle.end()
    assert torch.equal(before, during)


@pytest.mark.parametrize("setting", ["one thread", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", None])
def test_what_the_user_set_holds(setting, monkeypatch):
    if setting == "one thread":
        torch.set_num_threads(1)
    elif setting:
        monkeypatch.setenv(setting, "1")
    names = []
    with sharing_cores():
        names = [thread.name for thread in threading.enumerate()]
    assert ("vitrim-shared-cores" in names) == (setting is None)
    assert "vitrim-shared-cores" not in [thread.name for thread in threading.enumerate()]
