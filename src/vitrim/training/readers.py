"""The loader of training slices, and the shared memory through which its processes hand them over."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from vitrim.config.schema import TrainConfig
from vitrim.data.cache import collate_slices
from vitrim.errors import ConfigurationError

AHEAD = 2
"""Batches that each process prepares before they are asked for."""

SHARED_MEMORY = Path("/dev/shm")


def slice_loader(data: Dataset[Any], batches: Sampler[list[int]], config: TrainConfig) -> DataLoader[Any]:
    """Return the loader of a training; each of its batches holds the items that `batches` names."""
    return DataLoader(
        data,
        batch_sampler=batches,
        num_workers=config.workers or 0,
        prefetch_factor=AHEAD if config.workers else None,
        collate_fn=collate_slices,
        worker_init_fn=_ignore_signals,
        persistent_workers=bool(config.workers),
        pin_memory=config.device == "gpu",
    )


def check_shared_memory(config: TrainConfig, data: Dataset[Any]) -> None:
    """Check that the batches prepared ahead fit into shared memory. torch would wait for ever for one that does not.

    Raises ConfigurationError with the number of processes that fit.
    """
    if not config.workers or not SHARED_MEMORY.is_dir():
        return
    item, left = data[0], shutil.disk_usage(SHARED_MEMORY).free
    batch = config.batch_size // config.nodes * sum(item[name].nbytes for name in ("image", "label"))
    in_an_epoch = len(data) // config.batch_size  # type: ignore[arg-type]

    def needed(workers: int) -> int:
        return (min(AHEAD * workers, in_an_epoch) + 1) * batch  # one more is in use

    if needed(config.workers) > left:
        fits = max(workers for workers in range(config.workers) if workers == 0 or needed(workers) <= left)
        raise ConfigurationError(
            f"training.workers {config.workers} may need {needed(config.workers) / 1e6:.0f} MB of shared memory, and "
            f"{SHARED_MEMORY} has {left / 1e6:.0f} MB left: set training.workers to {fits}, or give more "
            "(Docker: --ipc=host)"
        )


def _ignore_signals(number: int) -> None:
    """Leave it to the main process to stop. A signal to the whole group would otherwise end its readers first."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
