"""State of a training on disk. A killed training resumes from it and ends with the same numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vitrim.files import replacing


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

    def save(self, path: Path) -> None:
        """Write the state to `path`, completely or not at all."""
        with replacing(path) as temporary:
            torch.save(vars(self), temporary)


def load_state(path: Path | None) -> TrainingState | None:
    """Read a state; None if the file is missing or damaged. Code in the file is not executed."""
    if path is None or not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return TrainingState(**content)
    except Exception:  # what a damaged file raises differs between library versions
        return None


def steps_done(path: Path) -> int:
    """Return the number of steps that the training with this state has done; 0 without a state."""
    state = load_state(path)
    return len(state.losses) if state else 0
