"""Another of Lightning's loggers beside the CSV that is always written, by its class name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

from vitrim.errors import InputError


def make_logger(name: str | None, folder: Path, key: str) -> Logger | None:
    """One of Lightning's loggers for one trial, writing into `folder` if it writes files; None for no name.

    InputError where Lightning has no such logger, or what it needs is not installed.
    """
    if name is None:
        return None
    kind = getattr(loggers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        known = ", ".join(sorted(other for other in loggers.__all__ if other != "Logger"))
        raise InputError(f"--logger: Lightning has no logger {name!r}; it has {known}")
    accepted = inspect.signature(kind).parameters
    wanted: dict[str, Any] = {"save_dir": str(folder), "name": key, "run_name": key}
    try:
        return kind(**{option: value for option, value in wanted.items() if option in accepted})
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--logger: {name} cannot be used, what it needs is not installed: {reason}") from error
