"""The explorer's data: `explorer.npz` of one network, made small and put into the page."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.errors import InputError
from vitrim.report.pictures import window
from vitrim.report.quantise import Loss, loss, pack, rolled_out, unpack
from vitrim.report.run import arrays

BUDGET = 12_500_000
"""Bytes of a page that all explorers together may take: under 15 MB with everything else."""


@dataclass(frozen=True)
class Variant:
    """One depth of the network: head-averaged attention (n, B, N, N), every head of the first slice, predictions."""

    blocks: int
    mean: np.ndarray | None
    heads: tuple[np.ndarray, ...]
    prediction: np.ndarray | None


@dataclass(frozen=True)
class Stored:
    """An `explorer.npz` as it was read."""

    grid: tuple[int, int]
    cases: tuple[str, ...]
    slices: tuple[int, ...]
    image: np.ndarray
    reference: np.ndarray | None
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Embedded:
    """What goes into the page: compressed, as base64; `note` says in words what was lost and left out."""

    name: str
    title: str
    data: str
    note: str


def read_explorer(path: Path) -> Stored | None:
    """Read what `vitrim.study.explorer.write_explorer` wrote; None where there is no such file."""
    found = arrays(path)
    if found is None:
        return None
    try:
        h, w = (int(n) for n in found["grid"])
        depths = {int(name.split("_")[1]) for name in found if name.startswith(("mean_", "prediction_"))}
        variants = []
        for blocks in sorted(depths, reverse=True):
            heads = [found.get(f"heads_{blocks}_{block}") for block in range(1, blocks + 1)]
            known = tuple(part for part in heads if part is not None)
            variants.append(
                Variant(
                    blocks=blocks,
                    mean=found.get(f"mean_{blocks}"),
                    heads=known if len(known) == blocks else (),
                    prediction=found.get(f"prediction_{blocks}"),
                )
            )
        return Stored(
            grid=(h, w),
            cases=tuple(str(case) for case in found["case"]),
            slices=tuple(int(index) for index in found["slice"]),
            image=found["image"],
            reference=found.get("reference"),
            variants=tuple(variants),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path} is not what the explorer reads: {error!r}") from error


def embed(name: str, title: str, stored: Stored, classes: Sequence[str], budget: int) -> Embedded | None:
    """Put a network's attention into at most `budget` bytes of page; None if not even the average of one slice fits.

    What is left out, in this order: single heads of the truncated networks, single heads, slices from the last on.
    """
    deepest = max((variant.blocks for variant in stored.variants if variant.mean is not None), default=0)
    if not deepest:
        return None
    slices = len(stored.cases)
    plans = [(slices, "all"), (slices, "full"), *((count, "none") for count in range(slices, 0, -1))]
    for count, heads in plans:
        data, lost = _pack(title, stored, classes, count, heads, deepest)
        if len(data) <= budget:
            return Embedded(name, title, data, _note(stored, lost, count, heads))
    return None


def _pack(title: str, stored: Stored, classes: Sequence[str], count: int, heads: str, deepest: int) -> tuple[str, Loss]:
    """The page's data for the first `count` slices, and what was lost."""
    parts: dict[str, bytes] = {"image": np.stack([window(image) for image in stored.image[:count]]).tobytes()}
    if stored.reference is not None:
        parts["reference"] = stored.reference[:count].astype(np.uint8).tobytes()
    lost, variants = Loss(0, 0, 0), []
    for variant in stored.variants:
        entry: dict[str, Any] = {"blocks": variant.blocks, "heads": [], "maps": variant.mean is not None}
        if variant.prediction is not None:
            parts[f"prediction-{variant.blocks}"] = variant.prediction[:count].astype(np.uint8).tobytes()
        if variant.mean is not None:
            exact = _rows(variant.mean[:count])
            packed = pack(exact)
            parts[f"mean-{variant.blocks}"] = packed.content
            shown = unpack(packed)
            lost = lost.join(loss(exact, shown, stored.grid))
            lost = lost.join(loss(rolled_out(exact[0]), rolled_out(shown[0]), stored.grid))
        if variant.heads and (heads == "all" or (heads == "full" and variant.blocks == deepest)):
            entry["heads"] = [len(block) for block in variant.heads]
            exact = _rows(np.concatenate(variant.heads))
            packed = pack(exact)
            parts[f"heads-{variant.blocks}"] = packed.content
            lost = lost.join(loss(exact, unpack(packed), stored.grid))
        variants.append(entry)
    header = {
        "title": title,
        "grid": stored.grid,
        "size": stored.image.shape[1:],
        "classes": list(classes),
        "slices": [{"case": c, "slice": s} for c, s in zip(stored.cases[:count], stored.slices[:count], strict=True)],
        "variants": variants,
        "sections": {name: len(content) for name, content in parts.items()},
    }
    head = json.dumps(header).encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    content = b"".join([struct.pack("<I", len(head)), head, *parts.values()])
    return base64.b64encode(packer.compress(content) + packer.flush()).decode("ascii"), lost


def _rows(maps: np.ndarray) -> np.ndarray:
    """Rows of float16, made to sum to 1 again."""
    maps = maps.astype(np.float64)
    return maps / maps.sum(axis=-1, keepdims=True)


def _note(stored: Stored, lost: Loss, count: int, heads: str) -> str:
    text = (
        f"Attention is kept in this page at 4 bits a value. By that, on average {100 * lost.moved:.1f} % (at most "
        f"{100 * lost.moved_most:.1f} %) of what a patch attends to is shown in another place, rollout included, and "
        f"the globality of a patch is off by at most {lost.globality:.3f}."
    )
    if not any(variant.heads for variant in stored.variants):
        return text
    if heads == "none":
        return f"{text} Single heads are left out for size."
    if len(stored.cases) > 1:
        text += " Single heads are kept for the first slice, their average for all."
    if heads == "full" and len([variant for variant in stored.variants if variant.heads]) > 1:
        text += " Those of the truncated networks are left out for size."
    return text
