"""Truncation: the same network with only its first k transformer blocks."""

from __future__ import annotations

from torch import nn

from vitrim.errors import InputError


def truncate(model: nn.Module, depth: int) -> nn.Module:
    """Return a copy of `model` with its first `depth` transformer blocks (paper, 3.8; figures 6 and 7).

    Every surviving weight is kept exactly; `model` itself is not changed. At the full depth the copy gives the same
    logits. A truncated network is a starting point: without training on, it is not expected to segment.

    Raises InputError where the network has no form of that depth, or does not offer truncation (see `vitrim.adapt`).
    """
    if not hasattr(model, "truncated"):
        raise InputError(f"{type(model).__name__} cannot be truncated as it is; wrap it with vitrim.adapt(model) first")
    return model.truncated(depth)  # type: ignore[operator]
