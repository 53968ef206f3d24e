"""The lock of a study: one process at a time may run it. The operating system frees the lock of a dead process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vitrim.errors import InputError
from vitrim.studies.status import read_status

NAME = ".lock"
PATIENCE = 1.0
"""Seconds to wait for the lock, because `is_locked` in another process may hold it for a moment."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the study in `folder`. Raises InputError with the process id if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        status = read_status(folder)
        who = f"process {status.get('pid', '?')} on {status.get('host', '?')}"
        raise InputError(
            f"{who} already runs the study in {folder}; see its state with --status, "
            f"or choose another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process is running the study in `folder`."""
    if not (folder / NAME).is_file():
        return False
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
