"""How well a segmentation agrees with its reference, per case and class, in 3D on the original grid.

Empty masks (design, section 4): where reference and prediction are both empty, Dice and HD95 are NaN and the case is
left out of that class's mean; where only one of them is, Dice is 0 and HD95 the volume's diagonal. A missed organ can
therefore never improve a mean by disappearing from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.metrics.utils import get_mask_edges, get_surface_distance

SURFACE_TOLERANCE = 2.0
"""How far apart surfaces may lie and still count as agreeing: mm, or voxels where no spacing is known."""


def case_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Mapping[int, str],
    spacing: Sequence[float] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Compare two label maps (X, Y, Z) of one case, class by class (the background, 0, left out).

    Returns one row per class: class (its name), dice, hd95, surface_dice, reference_voxels, predicted_voxels.
    `spacing` is the voxel size in mm; without it distances are in voxels. With `regions` (name to the classes that make
    it up) the rows are those of the regions, which may overlap, instead. Raises ValueError if the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    if regions is None:
        regions = {name: (index,) for index, name in classes.items() if index}
    rows = []
    for name, members in regions.items():
        mine, theirs = np.isin(prediction, list(members)), np.isin(reference, list(members))
        distances = surface_distances(mine, theirs, spacing)
        rows.append(
            {
                "class": name,
                "dice": dice(mine, theirs),
                "hd95": _percentile(distances, mine, theirs, spacing),
                "surface_dice": _within(distances, mine, theirs, SURFACE_TOLERANCE),
                "reference_voxels": int(theirs.sum()),
                "predicted_voxels": int(mine.sum()),
            }
        )
    return rows


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|) of two masks; NaN if both are empty, 0 if one is."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else math.nan


def hausdorff95(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """95th percentile of the distances between the surfaces of two masks, in mm (voxels without `spacing`).

    The percentile is taken of the distances of both directions together, as medpy does and with it the public
    TransUNet code; MONAI's metric takes the larger of the two directions' percentiles, which is never smaller.
    NaN if both masks are empty, the volume's diagonal if one is.
    """
    return _percentile(surface_distances(prediction, reference, spacing), prediction, reference, spacing)


def surface_dice(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float] | None = None,
    tolerance: float = SURFACE_TOLERANCE,
) -> float:
    """Share of the two masks' surface voxels that lie within `tolerance` mm (voxels without `spacing`) of the other's.

    Normalised surface Dice (Nikolov et al. 2021), surface voxels counted alike, as MONAI does. NaN if both masks are
    empty, 0 if one is.
    """
    return _within(surface_distances(prediction, reference, spacing), prediction, reference, tolerance)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None
) -> np.ndarray | None:
    """Distances (n,) of every surface voxel of each mask from the other's surface; None where a mask is empty."""
    if not prediction.any() or not reference.any():
        return None
    mine, theirs = get_mask_edges(prediction, reference)
    there = get_surface_distance(mine, theirs, spacing=spacing)
    back = get_surface_distance(theirs, mine, spacing=spacing)
    return np.concatenate([there, back]).astype(np.float64)


def _percentile(
    distances: np.ndarray | None, prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None
) -> float:
    if distances is not None:
        return float(np.percentile(distances, 95))
    if not prediction.any() and not reference.any():
        return math.nan
    sides = np.asarray(spacing if spacing is not None else (1.0,) * reference.ndim)
    return float(np.linalg.norm(sides * reference.shape))


def _within(distances: np.ndarray | None, prediction: np.ndarray, reference: np.ndarray, tolerance: float) -> float:
    if distances is not None:
        return float(np.mean(distances <= tolerance))
    return math.nan if not prediction.any() and not reference.any() else 0.0


def slice_dice(
    prediction: np.ndarray, reference: np.ndarray, classes: Mapping[int, str], axis: int = 2
) -> dict[str, float]:
    """Mean Dice over the slices of one case across `axis`, per class; slices where both are empty are left out.

    Some papers report this in place of Dice in 3D. NaN for a class that no slice has.
    """
    others = tuple(n for n in range(reference.ndim) if n != axis)
    means = {}
    for index, name in classes.items():
        if index:
            mine, theirs = prediction == index, reference == index
            total = mine.sum(axis=others) + theirs.sum(axis=others)
            common = (mine & theirs).sum(axis=others)
            means[name] = float(np.mean(2 * common[total > 0] / total[total > 0])) if total.any() else math.nan
    return means
