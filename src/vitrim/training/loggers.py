"""Makes an additional logger by name. The loss history is always written, also without it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

from vitrim.errors import ConfigurationError

NAMES = {
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
    "csv": "CSVLogger",
}
"""Short names of Lightning's loggers."""

EXPERIMENT = "vitrim"
"""Name of the project (W&B) or experiment (MLflow) that all trials of a study belong to."""


def make_logger(name: str | None, folder: Path, key: str) -> Logger | None:
    """Make a logger for the trial `key`, by a short name or the class name of one of Lightning's. None without a name.

    It writes its files into `folder`, unless its own settings say otherwise (MLFLOW_TRACKING_URI, WANDB_MODE).

    Raises ConfigurationError if there is no such logger, or if a package that it needs is not installed.
    """
    if name is None:
        return None
    kind = getattr(loggers, NAMES.get(name, name), None)
    if not (isinstance(kind, type) and issubclass(kind, Logger)):
        known = ", ".join(sorted({*loggers.__all__} - {"Logger", *NAMES.values()}))
        raise ConfigurationError(f"--logger: there is no logger {name!r}; choose from {', '.join(NAMES)}, {known}")
    accepted = inspect.signature(kind).parameters
    wanted: dict[str, Any] = {"save_dir": str(folder), "name": key, "run_name": key}
    wanted |= {"experiment_name": EXPERIMENT, "project": EXPERIMENT}
    try:
        return kind(**{option: value for option, value in wanted.items() if option in accepted})
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"--logger: {name} needs a package that is not installed: {reason}") from error
