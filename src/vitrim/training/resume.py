"""The state of a training on disk, from which a training that was killed goes on with the same numbers."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vitrim.files import replacing


@dataclass
class TrainingState:
    """Everything that a training needs to go on. Nothing random is kept: all that is drawn follows from the seed."""

    network: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    """Of the precision 16-mixed; empty for the others."""
    losses: list[float] = field(default_factory=list)
    """One value a step."""
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        with replacing(path) as temporary:
            torch.save(vars(self), temporary)


def load_state(path: Path | None) -> TrainingState | None:
    """Read a state; None if there is no such file, or it is damaged. Nothing in the file is executed."""
    if path is None or not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return TrainingState(**content)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        return None


def steps_done(path: Path) -> int:
    """Number of steps that the training with this state has done; 0 without a state."""
    state = load_state(path)
    return len(state.losses) if state else 0
