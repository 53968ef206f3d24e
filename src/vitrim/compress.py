"""Truncation: the same network with only its first k transformer blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from vitrim.attention.decision import Decision
from vitrim.errors import InputError
from vitrim.files import replacing
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.describe import count_macs, count_parameters

BESIDE = ("preparation.json", "trial.json")
"""What may lie beside a checkpoint and holds for its truncated form too: how its data were prepared and split."""


def truncate(model: nn.Module, depth: int) -> nn.Module:
    """Return a copy of `model` with its first `depth` transformer blocks (paper, 3.8; figures 6 and 7).

    Every surviving weight is kept exactly; `model` itself is not changed. At the full depth the copy gives the same
    logits. A truncated network is a starting point: without training on, it is not expected to segment.

    Raises InputError where the network has no form of that depth, or does not offer truncation (see `vitrim.adapt`).
    """
    if not hasattr(model, "truncated"):
        raise InputError(f"{type(model).__name__} cannot be truncated as it is; wrap it with vitrim.adapt(model) first")
    return model.truncated(depth)  # type: ignore[operator]


def compress_checkpoint(checkpoint: Path, out: Path, depth: int | None, decision: Path | None) -> list[str]:
    """Truncate the network in the folder `checkpoint` into the new folder `out`, to `depth` or as `decision` says.

    Returns what it cost and what it saves, as lines (equation 5). InputError if there is no such network, if it has no
    form of that depth, if the decision is another network's, or if `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder with --out")
    network = load_model(checkpoint)
    if decision is not None:
        decided = Decision.load(decision)
        if len(decided.blocks) != network.depth:
            raise InputError(
                f"{decision} decides on a network of {len(decided.blocks)} blocks, {checkpoint} has {network.depth}"
            )
        depth = decided.depth
    assert depth is not None  # the command line sees to it that one of the two is given
    small = network.truncated(depth)
    with replacing(out) as unfinished:
        save_model(small, unfinished)
        for name in BESIDE:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, unfinished / name)
    size = network.config.image_size
    before, after = count_parameters(network), count_parameters(small)
    work, less = count_macs(network, size), count_macs(small, size)
    return [
        f"{network.config.name}: {network.depth} -> {depth} blocks",
        f"parameters: {before:,} -> {after:,} ({100 * (before - after) / before:.2f} % saved)",
        f"multiply-adds: {work / 1e9:.2f} -> {less / 1e9:.2f} billion ({100 * (work - less) / work:.2f} % saved)",
        "the surviving weights are a starting point: train on before use",
        f"wrote {out}",
    ]
