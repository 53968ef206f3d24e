"""State of a training on disk. A killed training resumes from it and ends with the same numbers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vitrim.files import Telling, replacing

_log = logging.getLogger(__name__)

LONGEST = 60.0
"""Most seconds of a training between two states: what a killed training can lose."""

SHARE = 0.02
"""Share of the time that writing states may take, as long as that keeps them at most `LONGEST` seconds apart."""


@dataclass
class TrainingState:
    """Everything that a training needs to resume. It holds no random state, because the seed decides every draw."""

    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the gradient scaler for precision 16-mixed; empty for other precisions."""
    losses: list[float] = field(default_factory=list)
    """One value per step."""
    seconds: float = 0.0
    tuning_losses: dict[int, float] = field(default_factory=dict)
    """Loss on tuning cases after some of the steps, counted from 1."""
    best: dict[str, Any] = field(default_factory=dict)
    """Weights with the lowest of these losses; empty unless the training ends with them."""

    def save(self, path: Path) -> None:
        """Write the state to `path`, completely or not at all."""
        with replacing(path) as temporary, Telling(temporary) as file:
            torch.save(vars(self), file)  # type: ignore[arg-type]


class StateWriter:
    """Writes the state of a training to `path` from time to time; never if `path` is None.

    The first step is followed by a state, which shows how long writing takes.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._pause, self._last = 0.0, time.perf_counter()

    def due(self, last: bool) -> bool:
        """Whether it is time to write a state: enough of it has passed, or this is the last step."""
        return self.path is not None and (last or time.perf_counter() - self._last >= self._pause)

    def write(self, state: TrainingState) -> None:
        """Write a state."""
        if self.path is not None:
            begin = time.perf_counter()
            state.save(self.path)
            self._last = time.perf_counter()
            self._pause = min(LONGEST, (self._last - begin) / SHARE)


def load_state(path: Path | None) -> TrainingState | None:
    """Read a state; None if the file is missing or damaged. Code in the file is not executed."""
    if path is None or not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return TrainingState(**content)
    except Exception as error:  # what a damaged file raises differs between library versions
        _log.info("training starts anew, because %s cannot be read: %s", path, error)
        return None


def steps_done(path: Path) -> int:
    """Return the number of steps that the training with this state has done; 0 without a state."""
    state = load_state(path)
    return len(state.losses) if state else 0
