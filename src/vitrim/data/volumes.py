"""Read the image and label of a case, and check them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.file_checks import shape_text
from vitrim.data.formats import read_voxels
from vitrim.data.intensity_scale import PLAIN
from vitrim.data.io import AS_STORED, Voxels, as_volume, read_h5_volume, read_npz_slice
from vitrim.data.picture_files import is_picture, read_mask, with_channels
from vitrim.errors import DataError, InputError

_log = logging.getLogger(__name__)

AFFINE_TOLERANCE = 0.1
"""Largest allowed distance, in voxels, between the grid corners of image and label."""

ROUNDING = 1e-3
"""A label value this near to a whole number is that number. Saving a mask with a scale factor leaves 0.99999999977."""

UNKNOWN = 255
"""Marks a label value that has no class."""


def load_volume(case: Case, case_set: CaseSet) -> Volume:
    """Read the image and label of a case.

    Raises DataError if a file cannot be read, if image and label differ in shape or in position by more than 0.1
    voxels, if the image holds NaN or infinity, or if the label holds a value that `case_set` does not define.
    """
    volume, problems = read_volume(case, case_set)
    if volume is None or problems:
        raise DataError(problems[0])
    return volume


def read_volume(case: Case, case_set: CaseSet) -> tuple[Volume | None, list[str]]:
    """Read as much of a case as possible. Returns the volume (None if the image cannot be read) and all problems."""
    problems: list[str] = []

    def attempt(read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except InputError as error:
            problems.append(str(error))
            return None

    headless = case.images[0].suffix in (".npz", ".h5")
    stored = attempt(_load_slices, case) if headless else attempt(_load_channels, case, case_set)
    voxels, values = stored if stored and headless else (stored, None)
    label_scale = PLAIN
    if case.label is not None:
        read = attempt(_load_label, case, case.label, voxels, case_set)
        values, label_scale = (read.array, read.scale) if read else (None, PLAIN)
    label = None if values is None else attempt(to_classes, values, case_set, case.label or case.images[0])
    if voxels is None:
        return None, problems
    image = np.moveaxis(voxels.array, 3, 0).astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        problems.append(f"NaN or infinity in {case.images[0]}: repair or remove case {case.id}")
    spacing = _spacing(voxels.affine) if voxels.measured else None
    size = "unknown size" if spacing is None else f"{'×'.join(f'{mm:.4g}' for mm in spacing)} mm"
    _log.info("read %s: %s voxels of %s", case.images[0], shape_text(image.shape[1:]), size)
    rounded = _rounding(values)
    return Volume(image, label, voxels.affine, spacing, voxels.doubt, voxels.scale, label_scale, rounded), problems


def to_classes(values: np.ndarray, case_set: CaseSet, path: Path) -> np.ndarray:
    """Convert the values of a label file to classes, uint8. Values within 1e-3 of a whole number count as that number.

    Raises DataError if a value has no class.
    """
    known = case_set.label_values
    whole = values
    if values.dtype.kind not in "iu":
        whole = np.rint(np.nan_to_num(values.astype(np.float64), nan=-1).clip(-1, max(known) + 1)).astype(np.int64)
    near = whole is values or bool((np.abs(whole - values) <= ROUNDING).all())
    if near and whole.min() >= 0 and whole.max() <= max(known):
        table = np.full(max(known) + 1, UNKNOWN, np.uint8)
        for value, index in known.items():
            table[value] = index
        classes = table[whole]
        if not (classes == UNKNOWN).any():
            return classes
    unknown = next(
        value for value in np.unique(values).tolist() if not any(abs(value - one) <= ROUNDING for one in known)
    )
    names = ", ".join(f"{value} {case_set.classes[index]}" for value, index in sorted(known.items()))
    raise DataError(f"label value {unknown:.10g} in {path} has no class: known values are {names}")


def _rounding(values: np.ndarray | None) -> float:
    """Return the largest distance of the values of a label file from whole numbers."""
    if values is None or values.dtype.kind != "f":
        return 0.0
    finite = values[np.isfinite(values)]
    return float(np.abs(np.rint(finite) - finite).max(initial=0.0))


def _load_slices(case: Case) -> tuple[Voxels, np.ndarray]:
    """Read image (X, Y, Z, 1) and label (X, Y, Z) of a case without a header. Single slices are stacked along Z."""
    if case.images[0].suffix == ".h5":
        images, labels = read_h5_volume(case.images[0])
    else:
        pairs = [read_npz_slice(path) for path in case.images]
        odd = next((n for n, (image, _) in enumerate(pairs) if image.shape != pairs[0][0].shape), None)
        if odd is not None:
            raise DataError(
                f"the slices of case {case.id} differ in shape: {shape_text(pairs[0][0].shape)} and"
                f" {shape_text(pairs[odd][0].shape)} in {case.images[odd]}"
            )
        images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    if images.dtype.kind not in "iufb" or labels.dtype.kind not in "iufb":
        raise DataError(f"{case.images[0]} holds values that are not numbers")
    voxels = Voxels(images.transpose(2, 1, 0)[..., None], AS_STORED, oriented=False, measured=False)
    return voxels, labels.transpose(2, 1, 0)


def _load_channels(case: Case, case_set: CaseSet) -> Voxels:
    """Read the image (X, Y, Z, C) of a case, from one file per channel or from one file with a fourth axis."""
    channels = len(case_set.channels)
    if is_picture(case.images[0]):
        picture = read_voxels(case.images[0])
        pixels = with_channels(picture.array[:, :, 0], channels, case.images[0])
        return replace(picture, array=pixels[:, :, None])
    files = [read_voxels(path, case_set.voxel_size) for path in case.images]
    arrays: list[np.ndarray] = []
    for voxels, path in zip(files, case.images, strict=True):
        if voxels.array.ndim == 4 and (len(files) > 1 or voxels.array.shape[3] != channels):
            raise DataError(
                f"{path} has a fourth axis of length {voxels.array.shape[3]}, but the data set has {channels}"
                " channel(s)"
            )
        arrays.extend(np.moveaxis(voxels.array, 3, 0) if voxels.array.ndim == 4 else [voxels.array])
        if arrays[0].shape != arrays[-1].shape:
            raise DataError(
                f"the channels of case {case.id} differ in shape: {shape_text(arrays[0].shape)} and"
                f" {shape_text(arrays[-1].shape)} in {path}"
            )
        _check_place(case, files[0], voxels, path, "the channels")
    if len(arrays) != channels:
        raise DataError(
            f"case {case.id} has {len(arrays)} channel(s), but the data set has {channels}: {case.images[0]}"
        )
    scale = next((voxels.scale for voxels in files if voxels.scale != PLAIN), PLAIN)
    return Voxels(np.stack(arrays, 3), files[0].affine, files[0].oriented, files[0].doubt, scale)


def _load_label(case: Case, path: Path, image: Voxels | None, case_set: CaseSet) -> Voxels:
    """Read the values (X, Y, Z) of a label file; of a mask in colours, the classes.

    Raises DataError if shape or position differ from the image's. `image` is None if the image could not be read.
    """
    planar = is_picture(path)
    label = as_volume(read_mask(path, case_set)) if planar else read_voxels(path, case_set.voxel_size)
    if image is None:
        return label
    if label.array.shape != image.array.shape[:3]:
        axes = 2 if planar else 3
        raise DataError(
            f"image and label of case {case.id} differ in shape: {shape_text(image.array.shape[:axes])} in"
            f" {case.images[0]}, {shape_text(label.array.shape[:axes])} in {path}"
        )
    _check_place(case, image, label, path, "image and label")
    return label


def _check_place(case: Case, one: Voxels, other: Voxels, path: Path, what: str) -> None:
    """Raise DataError if two files of a case place a grid corner more than AFFINE_TOLERANCE apart.

    A file whose header gives no orientation passes: it takes that of the other file.
    """
    if not (one.oriented and other.oriented):
        return
    shape = one.array.shape[:3]
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])], np.float64)
    distance = np.linalg.norm((corners @ (one.affine - other.affine).T)[:, :3], axis=1).max()
    apart = float(distance / min(_spacing(one.affine)))
    if apart > AFFINE_TOLERANCE:
        raise DataError(
            f"{what} of case {case.id} differ in affine: {path} is {apart:.2g} voxels away from {case.images[0]}"
            f" (tolerance {AFFINE_TOLERANCE})"
        )


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z
