"""Runs `vitrim` in separate processes that a test can kill. They start fast because their imports are preloaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.shorter import shorten


def vitrim_process(*arguments: object, stderr: Path | str = os.devnull) -> multiprocessing.Process:
    """Start `vitrim` with these arguments, on one thread; its standard output goes nowhere."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vitrim.studies.runner", "vitrim.report.build", "tests.processes"])
    process = context.Process(target=_main, args=([str(argument) for argument in arguments], str(stderr)))
    process.start()
    return process  # type: ignore[return-value]


def _main(arguments: list[str], stderr: str) -> None:
    import torch

    from vitrim.cli import main

    shorten(pytest.MonkeyPatch())
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nothing, Path(stderr).open("w") as said:
        os.dup2(nothing.fileno(), 1)
        os.dup2(said.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also if the tests run in the background
        sys.argv = ["vitrim", *arguments]
        main()


def wait_for(happened: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `happened` returns something true; fail after `seconds`."""
    end = monotonic() + seconds
    while not happened():
        assert monotonic() < end, "it did not happen in time"
        sleep(0.02)
