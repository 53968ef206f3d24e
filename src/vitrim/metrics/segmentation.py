"""Metrics of a segmentation against its reference, per case and class, in 3D on the original grid.

Empty masks (docs/definitions.md): if reference and prediction are both empty, Dice, HD95 and surface Dice are NaN, and
the mean of this class leaves the case out. If only one of them is empty, Dice and surface Dice are 0 and HD95 is the
diagonal of the volume. A missed organ therefore counts in the mean and can never improve it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

SURFACE_TOLERANCE = 2.0
"""Tolerance of surface Dice in mm; in voxels if the spacing is not known."""


def case_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Mapping[int, str],
    spacing: Sequence[float] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Compare two label maps (X, Y, Z) of one case, class by class, without the background (class 0).

    Returns one row per class: class (its name), dice, hd95, surface_dice, reference_voxels, predicted_voxels.
    `spacing` is the voxel size in mm; without it, distances are in voxels. With `regions` (name to the classes of the
    region), there is one row per region instead; regions may overlap. Raises ValueError if the shapes differ.
    """
    rows = []
    for row, mine, theirs in _by_class(prediction, reference, classes, regions):
        distances = surface_distances(mine, theirs, spacing)
        hd95 = _percentile(distances, mine, theirs, spacing)
        surface = {"hd95": hd95, "surface_dice": _within(distances, mine, theirs, SURFACE_TOLERANCE)}
        rows.append({"class": row["class"], "dice": row["dice"], **surface, **row})
    return rows


def class_dice(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Mapping[int, str],
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """Do as `case_metrics`, without the distances: class, dice, reference_voxels, predicted_voxels."""
    return [row for row, _, _ in _by_class(prediction, reference, classes, regions)]


def _by_class(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Mapping[int, str],
    regions: Mapping[str, Sequence[int]] | None,
) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """Yield the row of `class_dice` of each class, with its mask in the prediction and in the reference."""
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    if regions is None:
        regions = {name: (index,) for index, name in classes.items() if index}
    for name, members in regions.items():
        mine, theirs = _mask(prediction, members), _mask(reference, members)
        row = {
            "class": name,
            "dice": dice(mine, theirs),
            "reference_voxels": int(theirs.sum()),
            "predicted_voxels": int(mine.sum()),
        }
        yield row, mine, theirs


def _mask(labels: np.ndarray, members: Sequence[int]) -> np.ndarray:
    """Return where `labels` has one of the classes `members`."""
    return labels == members[0] if len(members) == 1 else np.isin(labels, list(members))


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return Dice of two masks, 2 |A ∩ B| / (|A| + |B|); NaN if both are empty, 0 if one is empty."""
    total = int(prediction.sum()) + int(reference.sum())
    return 2 * int((prediction & reference).sum()) / total if total else math.nan


def hausdorff95(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Return HD95: the 95th percentile of the distances between the surfaces of two masks.

    The unit is mm, or voxels without `spacing`. The percentile covers the distances of both directions together, as in
    medpy and in the public TransUNet code. MONAI takes the larger percentile of the two directions, which is never
    smaller. Returns NaN if both masks are empty, and the diagonal of the volume if one is empty.
    """
    return _percentile(surface_distances(prediction, reference, spacing), prediction, reference, spacing)


def surface_dice(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float] | None = None,
    tolerance: float = SURFACE_TOLERANCE,
) -> float:
    """Return surface Dice: the share of the surface voxels of both masks within `tolerance` of the other surface.

    The unit of `tolerance` is mm, or voxels without `spacing`. This is normalised surface Dice (Nikolov et al. 2021)
    with equal weights for all surface voxels, as in MONAI. Returns NaN if both masks are empty, 0 if one is empty.
    """
    return _within(surface_distances(prediction, reference, spacing), prediction, reference, tolerance)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None = None
) -> np.ndarray | None:
    """Return the distances (n,) of the surface voxels of each mask to the other surface; None if a mask is empty.

    The unit is mm, or voxels without `spacing`.
    """
    if not prediction.any() or not reference.any():
        return None
    shape, sides = _sides(reference, spacing)
    mine, theirs = (_surface(mask.astype(bool).reshape(shape)) * sides for mask in (prediction, reference))
    distances = [KDTree(to).query(start)[0] for start, to in ((mine, theirs), (theirs, mine))]
    return np.concatenate(distances).astype(np.float32).astype(np.float64)  # as exact as MONAI's


def _sides(mask: np.ndarray, spacing: Sequence[float] | None) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape and voxel size of an image without its axes of length 1.

    A single slice has no surface across itself: otherwise all of a mask would be surface.
    """
    sides = np.ones(mask.ndim) if spacing is None else np.asarray(spacing, np.float64)
    kept = [axis for axis, length in enumerate(mask.shape) if length > 1] or [0]
    return tuple(mask.shape[axis] for axis in kept), sides[kept]


def _surface(mask: np.ndarray) -> np.ndarray:
    """Return the places (n, axes) of the voxels of a mask with a neighbour, by a face, outside of it or of the image.

    Only the box around the mask is eroded.
    """
    found = np.nonzero(mask)
    start = np.array([axis.min() for axis in found])
    box = mask[tuple(slice(axis.min(), axis.max() + 1) for axis in found)]
    return np.argwhere(box & ~binary_erosion(box)) + start


def _percentile(
    distances: np.ndarray | None, prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float] | None
) -> float:
    if distances is not None:
        return float(np.percentile(distances, 95))
    if not prediction.any() and not reference.any():
        return math.nan
    shape, sides = _sides(reference, spacing)
    return float(np.linalg.norm(sides * shape))


def _within(distances: np.ndarray | None, prediction: np.ndarray, reference: np.ndarray, tolerance: float) -> float:
    if distances is not None:
        return float(np.mean(distances <= tolerance))
    return math.nan if not prediction.any() and not reference.any() else 0.0


def slice_dice(
    prediction: np.ndarray, reference: np.ndarray, classes: Mapping[int, str], axis: int = 2
) -> dict[str, float]:
    """Return the mean Dice per class over the slices of one case along `axis`.

    Slices where both masks are empty are left out. Some papers report this instead of Dice in 3D. The mean is NaN for a
    class that occurs in no slice.
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
