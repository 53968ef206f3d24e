"""Resize slices: bilinear or nearest neighbour with aligned pixel centres, or as `scipy.ndimage.zoom` does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage


def nearest(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize labels (S, H, W) to `size` (H, W) by the nearest neighbour, pixel centres aligned."""
    if list(labels.shape[1:]) == list(size):
        return labels
    return _interpolated(labels.copy(order="C")[:, None], size, mode="nearest-exact")[:, 0]


def bilinear(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize images (S, C, H, W) or (C, S, H, W) to `size` (H, W) bilinearly, pixel centres aligned."""
    return _interpolated(images, size, mode="bilinear", align_corners=False)


def corner_bilinear(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize values (S, H, W) to `size` (H, W) bilinearly, centres of the corner pixels aligned."""
    return _interpolated(values[:, None], size, mode="bilinear", align_corners=True)[:, 0]


def _interpolated(values: np.ndarray, size: Sequence[int], **options: Any) -> np.ndarray:
    import torch  # only here: phantoms and checks of files need no torch

    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return torch.nn.functional.interpolate(tensor, size=tuple(size), **options).numpy()


def zoomed_images(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize float32 images (..., H, W) to `size` (H, W), each slice as `scipy.ndimage.zoom` with order 3 does.

    This zoom is linear in the pixels and the same for every row and every column, so two matrix products compute it.
    """
    rows, columns = (_spline(old, new) for old, new in zip(images.shape[-2:], size, strict=True))
    return rows @ (images @ columns.T)


def zoomed_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize labels (S, H, W) to `size` (H, W), each slice as `scipy.ndimage.zoom` with order 0 does."""
    rows, columns = (_picked(old, new) for old, new in zip(labels.shape[1:], size, strict=True))
    found = labels[:, rows][:, :, columns]
    found[:, rows < 0] = 0
    found[:, :, columns < 0] = 0
    return found


@lru_cache(maxsize=32)
def _spline(old: int, new: int) -> np.ndarray:
    """Return the matrix (new, old) of a zoom with order 3 along one axis; column n is the zoom of pixel n alone."""
    weights = ndimage.zoom(np.eye(old), (new / old, 1), order=3)
    # Weights decrease exponentially. Most would be subnormal in float32, and the products 40 times slower.
    weights[np.abs(weights) < 1e-9] = 0
    return weights.astype(np.float32)


@lru_cache(maxsize=32)
def _picked(old: int, new: int) -> np.ndarray:
    """Return for each of `new` pixels the index of the old pixel that a zoom with order 0 takes; -1 if scipy writes 0.

    scipy computes positions in floating point. If the last position falls beyond the end, scipy writes 0.
    """
    return ndimage.zoom(np.arange(old), new / old, order=0, cval=-1)
