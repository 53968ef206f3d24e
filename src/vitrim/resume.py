"""A training that was killed goes on with its last epoch: what is kept on the way, and how it is found again."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from vitrim.data.batches import mixed
from vitrim.files import replacing

KEY = "vitrim"
"""Where our own part lies in Lightning's checkpoint."""


@dataclass(frozen=True)
class Progress:
    """How far a training had come: the loss of every step, and the seconds that it took."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


class KeepState(pl.Callback):
    """Write a Lightning checkpoint at the end of every epoch: network, optimiser, schedule, losses, seconds.

    Nothing random needs to be kept: the order of an epoch's slices and what a step draws follow from the seed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = 0.0
        self.begin = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        self.begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary, weights_only=False)
        else:
            trainer.save_checkpoint(self.path, weights_only=False)  # takes part, and writes nothing

    def on_save_checkpoint(self, trainer: pl.Trainer, task: Any, checkpoint: dict[str, Any]) -> None:
        seconds = self.before + time.perf_counter() - self.begin
        checkpoint[KEY] = {"losses": list(task.losses), "seconds": seconds}
        # Lightning's own count of epochs and batches stays out: continued from it, an epoch is cut short, because it
        # takes the end of an epoch for the middle of one. What is left of the training is a training of its own.
        del checkpoint["loops"]

    def on_load_checkpoint(self, trainer: pl.Trainer, task: Any, checkpoint: dict[str, Any]) -> None:
        task.losses[:] = checkpoint[KEY]["losses"]
        self.before = checkpoint[KEY]["seconds"]


class SeedSteps(pl.Callback):
    """Whatever a step draws at random follows from the seed and the number of the step, also after a resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, task: Any, batch: Any, index: int) -> None:
        torch.manual_seed(mixed(self.seed, len(task.losses), trainer.global_rank))


def load_state(path: Path | None) -> Progress | None:
    """How far the training that left `path` had come; None where there is no such file, or it is damaged.

    Nothing in the file is executed, and of its tensors nothing is read.
    """
    if path is None or not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[KEY]
        return Progress(found["losses"], found["seconds"])
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
        return None
