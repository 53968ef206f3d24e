"""How a NIfTI header scales intensities: value = factor · stored number + offset (scl_slope, scl_inter)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.errors import DataError

Scale = tuple[float, float]
"""Factor and offset of the intensities."""

PLAIN: Scale = (1.0, 0.0)
"""The scale of a file whose values are the stored numbers."""

FACTORS = (1e-20, 1e20)
"""Smallest and largest factor between stored numbers and values; a header beyond them is damaged."""

FLOAT32 = float(np.finfo(np.float32).max) / 2
"""A number whose neighbour float32 still holds."""

SHOWN = 3
"""Number of different scales that a message names."""


def scaled(image: Any, path: Path) -> tuple[np.ndarray, Scale]:
    """Return the values of an image, and their scale.

    Raises DataError if the factor is absurd, or if float32, in which vitrim computes, cannot keep apart what is stored.
    """
    array = np.asanyarray(image.dataobj)
    scale = (float(getattr(image.dataobj, "slope", 1.0)), float(getattr(image.dataobj, "inter", 0.0)))
    if scale == PLAIN or array.dtype.kind != "f" or not array.size:
        return array, scale
    factor, stored = abs(scale[0]), image.dataobj.get_unscaled()
    apart = 1.0 if stored.dtype.kind in "iu" else float(np.ptp(stored))  # what has to stay apart
    lost = apart > 0 and _step(array) / factor > max(_step(stored), apart)
    if not FACTORS[0] <= factor <= FACTORS[1] or lost:
        raise DataError(
            f"{path}: its header scales voxels by {scale[0]:.6g} and adds {scale[1]:.6g}, so that they overflow or "
            "become equal: repair its header (scl_slope, scl_inter)"
        )
    return array, scale


def _step(values: np.ndarray) -> float:
    """Return the distance between neighbouring float32 numbers at the largest of the values."""
    largest = max(abs(float(values.min())), abs(float(values.max())))
    return float(np.spacing(np.float32(min(largest, FLOAT32)))) if np.isfinite(largest) else 0.0


def scale_text(scale: Scale) -> str:
    """Return a scale as text, for example `× 0.5 − 1024`."""
    factor, offset = scale
    parts = [f"× {factor:.6g}"] if factor != 1 else []
    parts += [f"{'−' if offset < 0 else '+'} {abs(offset):.6g}"] if offset else []
    return " ".join(parts) or "as stored"


def said_scales(scales: Mapping[str, Scale]) -> str:
    """Return the scales of images as text, the most frequent first: `as stored in 19 images; × 2 in case_003`."""
    parts = []
    for scale, count in Counter(scales.values()).most_common(SHOWN + 1):
        first = next(name for name, own in scales.items() if own == scale)
        parts.append(f"{scale_text(scale)} in {first if count == 1 else f'{count} images'}")
    return "; ".join(parts[:SHOWN]) + ("; and others" if len(parts) > SHOWN else "")
