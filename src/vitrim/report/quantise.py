"""Attention at 4 bits, so that all of it fits into a page, and what is lost by that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrim.attention.tokens import distances

LEVELS = 15
ENDS = 65535
SQUARES = ((np.arange(LEVELS + 1) / LEVELS) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Packed:
    """Rows of attention (..., N): `ends` (..., 2) uint16 and `levels` (..., ceil(N / 2)) uint8, two to a byte."""

    ends: np.ndarray
    levels: np.ndarray
    patches: int

    @property
    def content(self) -> bytes:
        """Ends of all rows, then levels of all rows; little-endian."""
        return self.ends.astype("<u2").tobytes() + self.levels.tobytes()


def pack(maps: np.ndarray) -> Packed:
    """Quantise attention (..., N), rows that sum to 1, to 16 levels between each row's own smallest and largest value.

    The levels lie closer for small values (the square root is what is rounded), since most attention is small. The low
    level of a byte is the earlier one.
    """
    maps = np.asarray(maps, dtype=np.float32)
    low, high = maps.min(axis=-1), maps.max(axis=-1)
    ends = (
        np.stack([np.floor(np.sqrt(low) * ENDS), np.ceil(np.sqrt(high) * ENDS)], axis=-1)
        .clip(0, ENDS)
        .astype(np.uint16)
    )
    bottom, top = _ends(ends)
    share = (maps - bottom) / np.maximum(top - bottom, 1e-12)
    levels = np.rint(np.sqrt(share.clip(0, 1)) * LEVELS).astype(np.uint8)
    if levels.shape[-1] % 2:
        levels = np.concatenate([levels, np.zeros((*levels.shape[:-1], 1), np.uint8)], axis=-1)
    pairs = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return Packed(ends, pairs, maps.shape[-1])


def unpack(packed: Packed) -> np.ndarray:
    """What the page shows: attention (..., N), rows made to sum to 1 again. The browser does the same."""
    pairs = packed.levels
    levels = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*pairs.shape[:-1], -1)[..., : packed.patches]
    bottom, top = _ends(packed.ends)
    values = bottom + SQUARES[levels] * (top - bottom)
    return values / values.sum(axis=-1, keepdims=True)


def _ends(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each row, from the integers that stand for their square roots: (..., 1) each."""
    values = (ends.astype(np.float32) / ENDS) ** 2
    return values[..., :1], values[..., 1:]


def row_globality(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Of every row of (..., N, N): its distance over that of uniform attention, (..., N)."""
    far = distances(grid).float().numpy()
    return (maps * far).sum(axis=-1) / far.mean()


@dataclass(frozen=True)
class Loss:
    """What 4 bits lose, over all rows: share of a row's attention that lies elsewhere, and the error of globality."""

    moved: float
    """Mean over rows of half the absolute differences (total variation)."""
    moved_most: float
    globality: float
    """Largest error of one patch's globality."""

    rows: int

    def join(self, other: Loss) -> Loss:
        """Both together."""
        rows = self.rows + other.rows
        return Loss(
            (self.moved * self.rows + other.moved * other.rows) / rows,
            max(self.moved_most, other.moved_most),
            max(self.globality, other.globality),
            rows,
        )


def loss(exact: np.ndarray, shown: np.ndarray, grid: tuple[int, int]) -> Loss:
    """Compare attention (..., N, N) with what the page shows of it."""
    moved = np.abs(exact - shown).sum(axis=-1) / 2
    far = np.abs(row_globality(exact, grid) - row_globality(shown, grid))
    return Loss(float(moved.mean()), float(moved.max()), float(far.max()), moved.size)
