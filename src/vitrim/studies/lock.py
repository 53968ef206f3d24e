"""One process at a time runs a study: a lock that the operating system takes back from a process that dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vitrim.errors import InputError
from vitrim.studies.status import read_status

NAME = ".lock"
PATIENCE = 1.0
"""Seconds to wait, because who asks whether a study runs holds its lock for a moment."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the study in `folder`. InputError, which says who has it, if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        status = read_status(folder)
        who = f"process {status.get('pid', '?')} on {status.get('host', '?')}"
        raise InputError(
            f"the study in {folder} is being run by {who}; look at it with --status, "
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
