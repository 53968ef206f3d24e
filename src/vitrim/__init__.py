"""vitrim: trim the transformer of a hybrid segmentation network to the blocks that it needs.

The verbs below are loaded when they are first used, so that `import vitrim` stays fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "InputError": "errors",
    "create_model": "models.factory",
    "load_model": "models.checkpoint",
    "save_model": "models.checkpoint",
    "adapt": "models.adapt",
    "describe": "models.describe",
    "capture_attention": "attention.capture",
    "profile_attention": "attention.profile",
    "decide_depth": "attention.decision",
    "truncate": "compress",
    "choose_blocks": "choose",
    "recover": "recovery",
}

__all__ = sorted([*_ROOMS, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'vitrim' has no attribute {name!r}")
    return getattr(import_module(f"vitrim.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
