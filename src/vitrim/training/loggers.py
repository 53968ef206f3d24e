"""Makes an additional Lightning logger by class name. The loss history is always written, also without it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

from vitrim.errors import ConfigurationError


def make_logger(name: str | None, folder: Path, key: str) -> Logger | None:
    """Make one of Lightning's loggers for the trial `key`; it writes its files into `folder`. None without a name.

    Raises InputError if Lightning has no such logger, or if a package that it needs is not installed.
    """
    if name is None:
        return None
    kind = getattr(loggers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        known = ", ".join(sorted(other for other in loggers.__all__ if other != "Logger"))
        raise ConfigurationError(f"--logger: Lightning has no logger {name!r}; it has {known}")
    accepted = inspect.signature(kind).parameters
    wanted: dict[str, Any] = {"save_dir": str(folder), "name": key, "run_name": key}
    try:
        return kind(**{option: value for option, value in wanted.items() if option in accepted})
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"--logger: {name} needs a package that is not installed: {reason}") from error
