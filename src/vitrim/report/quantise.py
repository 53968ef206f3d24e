"""Quantisation of attention to 4 bits, so that the maps fit into a page, and its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrim.attention.tokens import distances

LEVELS = 15
ENDS = 65535
SQUARES = ((np.arange(LEVELS + 1) / LEVELS) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Packed:
    """Quantised rows of attention (..., N).

    ends: (..., 2) uint16, square roots of the smallest and largest value of each row, 1 as 65535. levels:
    (..., ceil(N / 2)) uint8, two levels per byte. patches: N.
    """

    ends: np.ndarray
    levels: np.ndarray
    patches: int

    @property
    def content(self) -> bytes:
        """The ends of all rows, then the levels of all rows; little-endian."""
        return self.ends.astype("<u2").tobytes() + self.levels.tobytes()


def pack(maps: np.ndarray) -> Packed:
    """Quantise attention (..., N) to 16 levels between the smallest and the largest value of each row.

    The rows sum to 1. The square root of a value is rounded: most attention values are small, and this puts more
    levels among small values. The low four bits of a byte hold the earlier level.
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
    """Return the attention (..., N) that the page shows, with rows normalised to sum 1. attention.js does the same."""
    pairs = packed.levels
    levels = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*pairs.shape[:-1], -1)[..., : packed.patches]
    bottom, top = _ends(packed.ends)
    values = bottom + SQUARES[levels] * (top - bottom)
    return values / values.sum(axis=-1, keepdims=True)


def _ends(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value of each row, (..., 1) each, from the stored square roots."""
    values = (ends.astype(np.float32) / ENDS) ** 2
    return values[..., :1], values[..., 1:]


def row_distance(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Attention distance of each row of (..., N, N), in patches, (..., N)."""
    return (maps * distances(grid).float().numpy()).sum(axis=-1)


@dataclass(frozen=True)
class Loss:
    """Quantisation error over `rows` rows: share of attention shown at another patch, and error of distance."""

    moved: float
    """Total variation distance between exact and shown row, mean over rows."""
    moved_most: float
    """The same, maximum over rows."""
    distance: float
    """Largest error of the attention distance of one patch, in patches."""

    rows: int

    def join(self, other: Loss) -> Loss:
        """Return the error over the rows of both."""
        rows = self.rows + other.rows
        return Loss(
            (self.moved * self.rows + other.moved * other.rows) / rows,
            max(self.moved_most, other.moved_most),
            max(self.distance, other.distance),
            rows,
        )


def loss(exact: np.ndarray, shown: np.ndarray, grid: tuple[int, int]) -> Loss:
    """Return the error of the attention that the page shows, `shown`, against `exact`; both (..., N, N)."""
    moved = np.abs(exact - shown).sum(axis=-1) / 2
    far = np.abs(row_distance(exact, grid) - row_distance(shown, grid))
    return Loss(float(moved.mean()), float(moved.max()), float(far.max()), moved.size)
