"""How many threads a study computes with: those that other studies on this machine leave, and always the same number.

The last bits of a training depend on the number of threads, so a study that continues takes the number that it has.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError
from vitrim.files import parse_json, understood, write_json
from vitrim.progress import Reporter
from vitrim.studies.folder import VERSIONS, nothing_trained

SETTING = "OMP_NUM_THREADS"
"""Environment variable with which the user sets the number."""


@contextmanager
def study_threads(training: TrainConfig, out: Path, reporter: Reporter) -> Iterator[None]:
    """Compute with as many threads as the study in `out` has, or, if it is new, as other studies leave; at least one.

    Nothing changes if the user has set the number, or if the study trains on a GPU or with several processes.
    """
    if SETTING in os.environ or training.device == "gpu" or training.processes > 1:
        yield
        return
    before = torch.get_num_threads()
    with _registered(out, before) as threads:
        if threads < before:
            reporter.say(f"{threads} of {before} threads; set {SETTING} for another number (docs/machines.md)")
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _registered(out: Path, most: int) -> Iterator[int]:
    """Choose at most `most` threads, and tell other studies of this user while this one runs."""
    stored, own = _stored(out), None
    threads = min(stored, most) if stored else most
    with suppress(
        OSError, Timeout, InputError
    ):  # without a folder that all studies see, a study takes what it would take alone
        folder = _registry()
        with FileLock(folder / ".lock", timeout=10):
            if not stored:
                threads = max(1, min(most, len(_cores()) - _taken(folder)))
            own = folder / f"{os.getpid()}.json"
            write_json(own, {"threads": threads, "cores": _cores()})
    try:
        yield threads
    finally:
        if own is not None:
            with suppress(OSError):
                own.unlink(missing_ok=True)


def _stored(out: Path) -> int | None:
    """Number of threads with which the study in `out` has trained; None if it has not."""
    if not (out / VERSIONS).is_file() or nothing_trained(out):
        return None
    with suppress(InputError), understood(out / VERSIONS):
        return max(1, int(parse_json(out / VERSIONS)["threads"]))
    return None


def _registry() -> Path:
    """The folder in which the running studies of this user stand. Raises OSError if there can be none."""
    if os.name != "posix":
        raise OSError("only POSIX systems tell whether a process runs")
    folder = Path(tempfile.gettempdir()) / f"vitrim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _taken(folder: Path) -> int:
    """Threads of the studies that run on the cores of this process. Files of processes that have ended are removed."""
    taken = 0
    for path in folder.glob("*.json"):
        with suppress(InputError), understood(path):
            if not _runs(int(path.stem)):
                path.unlink(missing_ok=True)
            elif (entry := parse_json(path))["cores"] == _cores():
                taken += int(entry["threads"])
    return taken


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        pass
    return True


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
