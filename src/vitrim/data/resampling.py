"""Slices of another size: bilinear and nearest with pixel centres aligned, or as `scipy.ndimage.zoom` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage


def nearest(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Labels (S, H, W) of another height and width, pixel centres aligned."""
    if list(labels.shape[1:]) == list(size):
        return labels
    tensor = torch.from_numpy(labels.copy(order="C"))[:, None]
    return F.interpolate(tensor, size=tuple(size), mode="nearest-exact")[:, 0].numpy()


def bilinear(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Images (S, C, H, W), or (C, S, H, W), of another height and width, pixel centres aligned."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False).numpy()


def corner_bilinear(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Values (S, H, W) of another height and width, the centres of the corners' pixels aligned."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))[:, None]
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=True)[:, 0].numpy()


def zoomed_images(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Images float32 (..., H, W) of another height and width, each slice as `scipy.ndimage.zoom` of order 3 makes it.

    Such a zoom is linear in the pixels and the same along every row and along every column: two matrix products.
    """
    rows, columns = (_spline(old, new) for old, new in zip(images.shape[-2:], size, strict=True))
    return rows @ (images @ columns.T)


def zoomed_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Labels (S, H, W) of another height and width, each slice as `scipy.ndimage.zoom` of order 0 makes it."""
    rows, columns = (_picked(old, new) for old, new in zip(labels.shape[1:], size, strict=True))
    found = labels[:, rows][:, :, columns]
    found[:, rows < 0] = 0
    found[:, :, columns < 0] = 0
    return found


@lru_cache(maxsize=32)
def _spline(old: int, new: int) -> np.ndarray:
    """Matrix (new, old) of a zoom of order 3 along one axis: what becomes of each pixel by itself."""
    weights = ndimage.zoom(np.eye(old), (new / old, 1), order=3)
    # a pixel's weight falls off exponentially: without this most are subnormal in float32, and products 40 times slower
    weights[np.abs(weights) < 1e-9] = 0
    return weights.astype(np.float32)


@lru_cache(maxsize=32)
def _picked(old: int, new: int) -> np.ndarray:
    """Of each of `new` pixels the one of `old` that a zoom of order 0 takes; -1 where it takes none, but 0.

    That happens at the last pixel, whose place scipy computes in floating point and can find beyond the end.
    """
    return ndimage.zoom(np.arange(old), new / old, order=0, cval=-1)
