"""Reading a case's voxels, with every check that can be made at the door."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.errors import InputError

AFFINE_TOLERANCE = 0.1
"""How far apart, in voxels, image and label may place any corner of the grid."""

GZIP_LIMIT = 1032
"""deflate cannot shrink anything by more than this factor: a header that promises more is damaged."""

UNKNOWN = 255
"""Stands for a label value that has no class."""

UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, nib.filebasedimages.ImageFileError)
"""What nibabel raises on files that are not what their name says."""


def load_volume(case: Case, case_set: CaseSet) -> Volume:
    """Read image and label of a case.

    Raises InputError if a file cannot be read, if image and label differ in shape or by more than a tenth of a voxel
    in place, if the image holds NaN or infinity, or if the label holds a value that `case_set` does not name.
    """
    image, affine, oriented = load_image(case, len(case_set.channels))
    if not np.isfinite(image).all():
        raise InputError(f"NaN or infinity in {case.images[0]}: repair or remove case {case.id}")
    label = None
    if case.label is not None:
        values, label_affine, label_oriented = _read_nifti(case.label)
        if values.ndim != 3 or values.shape != image.shape[1:]:
            raise InputError(
                f"image and label of case {case.id} differ in shape: {_text(image.shape[1:])} in {case.images[0]},"
                f" {_text(values.shape)} in {case.label}"
            )
        apart = _apart(affine, label_affine, values.shape) if oriented and label_oriented else 0.0
        if apart > AFFINE_TOLERANCE:
            raise InputError(
                f"image and label of case {case.id} differ in affine: they place the grid {apart:.2g} voxels apart"
                f" (tolerance {AFFINE_TOLERANCE}) in {case.images[0]} and {case.label}"
            )
        label = to_classes(values, case_set, case.label)
    return Volume(image, label, affine, _spacing(affine))


def load_image(case: Case, channels: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Image (C, X, Y, Z) float32 of a case, its affine, and whether its header says how the patient lies."""
    arrays = []
    first: tuple[np.ndarray, bool] | None = None
    for path in case.images:
        array, affine, oriented = _read_nifti(path)
        if array.ndim == 4:
            if len(case.images) > 1 or array.shape[3] != channels:
                raise InputError(
                    f"{path} has a fourth axis of length {array.shape[3]}, the data set {channels} channel(s)"
                )
            arrays.extend(np.moveaxis(array, 3, 0))
        else:
            arrays.append(array)
        if arrays[0].shape != arrays[-1].shape:
            raise InputError(
                f"the channels of case {case.id} differ in shape: {_text(arrays[0].shape)} and"
                f" {_text(arrays[-1].shape)} in {path}"
            )
        if first is not None and first[1] and oriented:
            apart = _apart(first[0], affine, arrays[0].shape)
            if apart > AFFINE_TOLERANCE:
                raise InputError(
                    f"the channels of case {case.id} differ in affine: {path} is {apart:.2g} voxels away from"
                    f" {case.images[0]} (tolerance {AFFINE_TOLERANCE})"
                )
        first = first or (affine, oriented)
    if len(arrays) != channels or first is None:
        raise InputError(f"case {case.id} has {len(arrays)} channel(s), the data set {channels}: {case.images[0]}")
    return np.stack(arrays).astype(np.float32, copy=False), *first


def to_classes(values: np.ndarray, case_set: CaseSet, path: Path) -> np.ndarray:
    """Turn the values of a label file into classes, uint8; InputError if one is not named."""
    known = case_set.label_values
    low, high = values.min(), values.max()
    whole = values if values.dtype.kind in "iu" else np.nan_to_num(values, nan=-1).clip(-1, max(known) + 1).astype(int)
    if low >= 0 and high <= max(known) and (whole is values or np.array_equal(whole, values)):
        table = np.full(max(known) + 1, UNKNOWN, np.uint8)
        for value, index in known.items():
            table[value] = index
        classes = table[whole]
        if not (classes == UNKNOWN).any():
            return classes
    unknown = next(value for value in np.unique(values).tolist() if value not in known)
    names = ", ".join(f"{value} {case_set.classes[index]}" for value, index in sorted(known.items()))
    raise InputError(f"label value {unknown:g} in {path} is not named: known are {names}")


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Voxels (X, Y, Z) or (X, Y, Z, C), affine, and whether the header gives an orientation."""
    try:
        image: Any = nib.load(path)
        _check_promise(image, path)
        array = np.asanyarray(image.dataobj)
    except UNREADABLE as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error
    if array.dtype.fields is not None or array.dtype.kind not in "iufb":
        raise InputError(f"{path} holds voxels of type {image.get_data_dtype()}: expected plain numbers")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(f"{path} is of shape {_text(array.shape)}: expected a volume")
    affine = np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path} has an affine that cannot be inverted: repair its header")
    return array, affine, _oriented(image)


def _check_promise(image: Any, path: Path) -> None:
    """Refuse a header that promises more voxels than the file can hold, before memory is asked for them."""
    voxels = float(np.prod([float(n) for n in image.shape]))
    data = Path(image.file_map["image"].filename)
    room = data.stat().st_size * (GZIP_LIMIT if data.suffix == ".gz" else 1)
    if voxels * image.get_data_dtype().itemsize > room:
        raise InputError(f"{path} is damaged: its header promises {voxels:.3g} voxels, the file cannot hold them")


def _oriented(image: Any) -> bool:
    """Whether the header says how the patient lies. Analyze cannot."""
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti1Pair)):
        return False
    return bool(image.header["sform_code"] > 0 or image.header["qform_code"] > 0)


def _apart(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance between two placements of a grid's corners, in units of its smallest voxel side."""
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])], np.float64)
    distance = np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max()
    return float(distance / min(_spacing(affine)))


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in shape)
