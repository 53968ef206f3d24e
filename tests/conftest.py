"""Prepares the processes that run the tests."""

from __future__ import annotations

import gc
import os

import pytest

# Workers share the cores: more threads than cores wait for one another. Before torch is imported, so that the processes
# that tests start have as many threads and give the same bits.
os.environ["OMP_NUM_THREADS"] = str(
    max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))
)

LONG = ("tests/studies/", "tests/test_face.py", "tests/commands/", "tests/training/")
"""Where the tests take longest."""


def pytest_configure(config: pytest.Config) -> None:
    """Import the fixtures, but not in a process that only hands out tests: its workers wait for it."""
    if hasattr(config, "workerinput") or config.getoption("numprocesses") in (None, 0):
        config.pluginmanager.import_plugin("tests.common_fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: each worker takes the next file when it is ready, so that all end at nearly the same time."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
    # What is imported by now stays. To look through it again and again for garbage took a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
