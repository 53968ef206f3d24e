"""The data of the attention explorer: `explorer.npz` of one network, compressed and embedded in the page."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitrim.attention.maps import roll_out
from vitrim.errors import InputError
from vitrim.files import read_arrays
from vitrim.report.images import window
from vitrim.report.quantise import Loss, loss, pack, unpack


@dataclass(frozen=True)
class Variant:
    """One depth of the network.

    mean: head-averaged attention (n, B, N, N). heads: for each block the attention of every head on the first slice,
    (heads, N, N). prediction: label maps (n, H, W).
    """

    blocks: int
    mean: np.ndarray | None
    heads: tuple[np.ndarray, ...]
    prediction: np.ndarray | None


@dataclass(frozen=True)
class Stored:
    """The contents of an `explorer.npz`."""

    grid: tuple[int, int]
    cases: tuple[str, ...]
    slices: tuple[int, ...]
    image: np.ndarray
    reference: np.ndarray | None
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Embedded:
    """The data of one network in the page, compressed, as base64. `note` states what was lost and left out."""

    name: str
    title: str
    data: str
    note: str


def read_explorer(path: Path) -> Stored | None:
    """Read a file of `vitrim.studies.snapshots.write_explorer`; None if there is no such file.

    Raises InputError if the file has other contents.
    """
    found = read_arrays(path)
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
        raise InputError(f"{path} is not an explorer file of vitrim: {error!r}") from error


def embed(
    name: str, title: str, stored: Stored, classes: Sequence[str], budget: int, decided: int | None = None
) -> Embedded | None:
    """Compress the attention of a network to at most `budget` bytes; None if the average of one slice does not fit.

    Of more than four depths, only the full one, the `decided` one and those of the paper (3 and 1) are kept. If the
    data are still too large, parts are left out in this order: single heads of the truncated networks; slices, the
    last one first; single heads of the full network.
    """
    with_maps = [variant for variant in stored.variants if variant.mean is not None]
    if not with_maps:
        return None
    full = max(variant.blocks for variant in with_maps)
    chosen = [variant for variant in with_maps if len(with_maps) <= 4 or variant.blocks in (full, decided, 3, 1)]
    sections = _sections(stored, chosen)
    slices = len(stored.cases)
    plans = [(slices, "all"), *((count, "full") for count in range(slices, 0, -1))]
    plans += [(count, "none") for count in range(slices, 0, -1)]
    for count, heads in plans:
        with_heads = {
            variant.blocks for variant in chosen if heads == "all" or (heads == "full" and variant.blocks == full)
        }
        kept = {
            key: part for key, part in sections.items() if part.slice < count and part.heads_of in with_heads | {None}
        }
        header = {
            "title": title,
            "grid": stored.grid,
            "size": stored.image.shape[1:],
            "classes": list(classes),
            "slices": [
                {"case": c, "slice": n} for c, n in zip(stored.cases[:count], stored.slices[:count], strict=True)
            ],
            "variants": [
                {"blocks": v.blocks, "heads": [len(h) for h in v.heads] if v.blocks in with_heads else []}
                for v in chosen
            ],
            "sections": {key: len(part.content) for key, part in kept.items()},
        }
        head = json.dumps(header).encode()
        size = 4 + len(head) + sum(len(part.content) for part in kept.values())
        if 4 * ((size + 2) // 3) <= budget:
            content = b"".join([struct.pack("<I", len(head)), head, *(part.content for part in kept.values())])
            note = _note(stored, chosen, [part.lost for part in kept.values() if part.lost is not None], count, heads)
            return Embedded(name, title, base64.b64encode(content).decode("ascii"), note)
    return None


@dataclass(frozen=True)
class Section:
    """One compressed part of the data.

    slice: index of its slice. heads_of: depth of the network if the part holds single heads, else None. lost:
    quantisation error, None if the part holds no attention.
    """

    content: bytes
    slice: int
    heads_of: int | None = None
    lost: Loss | None = None


def _sections(stored: Stored, chosen: Sequence[Variant]) -> dict[str, Section]:
    """Return all parts that could be embedded, by the name that attention.js uses."""
    sections = {}
    for index in range(len(stored.cases)):
        sections[f"image-{index}"] = Section(_deflate(window(stored.image[index]).tobytes()), index)
        if stored.reference is not None:
            sections[f"reference-{index}"] = Section(_labels(stored.reference[index]), index)
        for variant in chosen:
            if variant.prediction is not None:
                sections[f"prediction-{variant.blocks}-{index}"] = Section(_labels(variant.prediction[index]), index)
            assert variant.mean is not None  # `embed` chooses only variants with maps
            exact = _rows(variant.mean[index])
            packed = pack(exact)
            shown = unpack(packed)
            lost = loss(exact, shown, stored.grid).join(loss(roll_out(exact), roll_out(shown), stored.grid))
            sections[f"mean-{variant.blocks}-{index}"] = Section(_deflate(packed.content), index, None, lost)
    for variant in chosen:
        if variant.heads:
            exact = _rows(np.concatenate(variant.heads))
            packed = pack(exact)
            lost = loss(exact, unpack(packed), stored.grid)
            sections[f"heads-{variant.blocks}-0"] = Section(_deflate(packed.content), 0, variant.blocks, lost)
    return sections


def _labels(label: np.ndarray) -> bytes:
    return _deflate(label.astype(np.uint8).tobytes())


def _deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    return packer.compress(content) + packer.flush()


def _rows(maps: np.ndarray) -> np.ndarray:
    """Return float16 rows as float32, normalised to sum 1 again."""
    rows = maps.astype(np.float32)
    return rows / rows.sum(axis=-1, keepdims=True)


def _note(stored: Stored, chosen: Sequence[Variant], losses: Sequence[Loss], count: int, heads: str) -> str:
    """Describe the quantisation error and the parts left out."""
    moved = float(np.average([lost.moved for lost in losses], weights=[lost.rows for lost in losses]))
    most, far = max(lost.moved_most for lost in losses), max(lost.distance for lost in losses)
    text = (
        f"This page stores attention with 4 bits per value. Because of this, on average {100 * moved:.1f} % (at most "
        f"{100 * most:.1f} %) of the attention of a patch is shown at another patch, rollout included. The "
        f"attention distance of a patch is off by at most {far:.3f} patches."
    )
    truncated = [variant for variant in chosen[1:] if variant.heads]
    if any(variant.heads for variant in chosen):
        if heads == "none":
            text += " Single heads are left out for size."
        elif count > 1:
            text += " Single heads are stored for the first slice only, their average for all slices."
        if heads == "full" and truncated:
            text += " Single heads of the truncated networks are left out for size."
    if count < len(stored.cases):
        text += f" Slices left out for size: {len(stored.cases) - count} of {len(stored.cases)}."
    return text
