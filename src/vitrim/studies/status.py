"""The state of a running study, in small files for other processes. Each file is replaced by rename."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vitrim.errors import InputError
from vitrim.files import parse_json, understood, write_json
from vitrim.progress import TrainingProgress

FILE = "status.json"
PROGRESS = "progress.json"
SLICES = "unfinished/slices.npz"
"""Some training slices, while the study runs."""
SECONDS_BETWEEN = 1.0
"""Smallest number of seconds between two heartbeats of a training."""

State = Literal["waiting", "running", "finished", "failed"]


@dataclass
class Status:
    """The trials that are known so far, with their states. The study's folder stores them in status.json."""

    folder: Path
    trials: dict[str, tuple[str, State]] = field(default_factory=dict)
    """Title and state by trial key, in the order of the study."""
    seconds: list[float] = field(default_factory=list)
    """Duration in seconds of each trial that this run trained."""
    at_once: int = 1
    """Largest number of trials that run at the same time."""

    def set(self, key: str, title: str, state: State, seconds: float | None = None) -> None:
        """Set the state of a trial and write status.json. Give `seconds` if this run trained the trial."""
        self.trials[key] = (title, state)
        if seconds is not None:
            self.seconds.append(seconds)
        self.write()

    def count(self, *states: State) -> int:
        """Return the number of trials whose state is one of `states`."""
        return sum(state in states for _, state in self.trials.values())

    def left(self, more: int = 0) -> float | None:
        """Estimate the seconds for waiting and running trials and `more` others, from the mean duration of the trials
        that this run trained; None if there are none."""
        if not self.seconds:
            return None
        return sum(self.seconds) / len(self.seconds) * (self.count("waiting", "running") + more) / self.at_once

    def write(self) -> None:
        """Write status.json."""
        content = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "trials": [{"trial": key, "title": title, "state": state} for key, (title, state) in self.trials.items()],
            "seconds_each": sum(self.seconds) / len(self.seconds) if self.seconds else None,
            "at_once": self.at_once,
            "updated": time.time(),
        }
        write_json(self.folder / FILE, content)


@dataclass
class Heartbeat:
    """Heartbeat of one training: updates its progress.json. Works in any process on any machine."""

    folder: Path
    title: str
    doing: str = "train"
    """Present step, as a verb: train or evaluate."""
    last: float = 0.0
    """Time of the last heartbeat, in seconds since 1970."""
    begin: tuple[float, int] | None = None
    """Time and number of the first step in this process."""

    def __call__(self, moment: TrainingProgress | None = None) -> None:
        """Write the progress, at most once per `SECONDS_BETWEEN` and always after the last step."""
        now = time.time()
        if moment is not None and now - self.last < SECONDS_BETWEEN and moment.step < moment.steps:
            return
        self.last = now
        where: dict[str, Any] = {} if moment is None else dict(vars(moment))
        if moment is not None:
            self.begin = self.begin or (now, moment.step)
            if moment.step > self.begin[1]:
                each = (now - self.begin[0]) / (moment.step - self.begin[1])
                where |= {"seconds_left": each * (moment.steps - moment.step), "seconds_whole": each * moment.steps}
        write_json(
            self.folder / PROGRESS,
            {"title": self.title, "doing": self.doing, "pid": os.getpid(), "host": socket.gethostname(), **where,
             "updated": now},
        )  # fmt: skip


def read_status(folder: Path) -> dict[str, Any]:
    """Return the content of status.json; empty if it is missing or unreadable."""
    return _read(folder / FILE)


def heartbeats(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last heartbeat of each unfinished training, by trial key."""
    found = {path.parent.name: _read(path) for path in sorted(folder.glob(f"unfinished/*/{PROGRESS}"))}
    return {key: beat for key, beat in found.items() if beat}


def where(beat: dict[str, Any]) -> str:
    """Describe a heartbeat in one line."""
    line = f"{beat['doing']} {beat['title']}"
    if "epoch" in beat:
        line += (
            f"  epoch {beat['epoch']} of {beat['epochs']}, step {beat['step']} of {beat['steps']}, "
            f"loss {beat['loss']:.3f}"
        )
    return f"{line}  ({duration(time.time() - beat['updated'])} ago)"


def describe(folder: Path, running: bool) -> list[str]:
    """Describe the study in `folder` in a few lines: running trainings, numbers of trials by state, time left."""
    with understood(folder / FILE):
        return _described(folder, running)


def _described(folder: Path, running: bool) -> list[str]:
    status = read_status(folder)
    trials = status.get("trials", [])
    states = Counter(trial["state"] for trial in trials)
    unfinished = list(heartbeats(folder).values())
    lines = [f"no process runs a study in {folder}"]
    if running:
        lines = [f"process {status.get('pid', '?')} on {status.get('host', '?')} runs the study in {folder}"]
        lines += [f"  {where(beat)}" for beat in unfinished]
    if trials:
        seconds = _seconds_left(status, states["waiting"], unfinished) if running else None
        lines.append(
            f"{states['finished']} of {len(trials)} trials known so far are finished, {states['failed']} failed, "
            f"{states['waiting'] + states['running']} left"
            + (f"; about {duration(seconds)} to go" if seconds is not None else "")
        )
    return [*lines, *(f"  failed: {trial['title']}" for trial in trials if trial["state"] == "failed")]


def _seconds_left(status: dict[str, Any], waiting: int, unfinished: list[dict[str, Any]]) -> float | None:
    """Estimate the seconds left; None if nothing is known.

    Running trials count by their remaining steps, waiting ones by the mean duration of finished trials, or of running
    trials if none is finished.
    """
    now = time.time()
    running = [
        max(0.0, beat["seconds_left"] - (now - beat["updated"])) for beat in unfinished if "seconds_left" in beat
    ]
    whole = [beat["seconds_whole"] for beat in unfinished if "seconds_whole" in beat]
    each = status.get("seconds_each") or (sum(whole) / len(whole) if whole else None)
    if each is None:
        return None
    return (sum(running) + waiting * each) / status.get("at_once", 1)


def duration(seconds: float) -> str:
    """Format a duration in seconds as text in s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}
