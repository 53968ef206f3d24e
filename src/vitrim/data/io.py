"""Read one image file. A damaged or unsuitable file raises DataError with a message of one line."""

from __future__ import annotations

import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
from isal import igzip

from vitrim.config.names import VoxelSize
from vitrim.data.file_checks import check_end, check_file, check_memory, check_promise, shape_text, unreadable
from vitrim.data.geometry import geometry, is_flat
from vitrim.data.intensity_scale import PLAIN, Scale, scaled
from vitrim.errors import DataError, InputError

# nibabel tells what it repaired in a header on stderr; what matters of that is checked here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


AS_STORED = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of slices without a header: column numbers increase to the patient's left, row numbers to the back. Axial
slices are then displayed as they are stored."""


@dataclass
class Voxels:
    """The content of an image file."""

    array: np.ndarray
    """(X, Y, Z) or (X, Y, Z, C), with the data type of the file"""
    affine: np.ndarray
    """float64 (4, 4), voxel to mm in RAS+"""
    oriented: bool
    """Whether the header gives the patient's orientation"""
    doubt: str = ""
    """How the header contradicts itself about the voxel size; empty if it does not"""
    scale: Scale = PLAIN
    """Factor and offset from the stored numbers to the voxels' values, as the header says"""
    measured: bool = True
    """Whether the affine is in mm; if not, no size is known"""


def as_volume(pixels: np.ndarray) -> Voxels:
    """Return pixels (H, W) or (H, W, C) as a volume (W, H, 1) or (W, H, 1, C) of unknown voxel size."""
    return Voxels(pixels.swapaxes(0, 1)[:, :, None], AS_STORED, oriented=False, measured=False)


def read_nifti(path: Path, voxel_size: VoxelSize | None = None) -> Voxels:
    """Read a NIfTI or Analyze file, compressed or not.

    Axes of length 1 after the third are dropped; a single slice gets a third axis. The file is read to its end, so that
    gzip's checksum is compared. `voxel_size`: as in `vitrim.data.geometry`.

    Raises DataError if the file cannot be read, holds more or less than its header declares, does not hold a volume of
    numbers, has an affine that cannot be inverted, or scales intensities so that voxels become equal.
    """
    check_file(path)
    try:
        image: Any = nib.load(path)
        stored = Path(image.file_map["image"].filename)
        check_promise(image.shape, image.get_data_dtype().itemsize, stored, zipped=_zipped(stored))
        array, scale = scaled(_complete(image, stored), path)
        place = geometry(image, voxel_size)
    except InputError:
        raise
    except Exception as error:  # nibabel raises many kinds, more with each version
        raise unreadable(path, error) from error
    if array.dtype.fields is not None or array.dtype.kind not in "iufb":
        raise DataError(f"{path} holds voxels of type {image.get_data_dtype()}: expected plain numbers")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(f"{path} has the shape {shape_text(array.shape)}: expected a volume")
    affine = place.affine
    if is_flat(image.affine) or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12 or is_flat(affine):
        raise DataError(f"{path} has an affine that cannot be inverted: repair its header")
    return Voxels(array, affine, _oriented(image), place.doubt, scale)


def read_npz_slice(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read image and label (H, W) of one slice of the TransUNet release.

    Raises DataError if the file cannot be read, holds pickled objects, or does not hold one slice of each.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as stored:
            check_memory(sum(entry.file_size for entry in stored.infolist()), path)
        with np.load(path, allow_pickle=False) as content:
            image, label = content["image"], content["label"]
    except InputError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    if image.ndim != 2 or image.shape != label.shape:
        raise DataError(
            f"{path}: image is {shape_text(image.shape)}, label {shape_text(label.shape)}; expected one slice of each"
        )
    return image, label


def read_h5_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read image and label (S, H, W) of one volume of the TransUNet release.

    Raises DataError if the file cannot be read or does not hold both with the same shape.
    """
    check_file(path)
    try:
        with h5py.File(path, "r") as file:
            for key in ("image", "label"):
                _check_own(file, key, path)
            missing = [key for key in ("image", "label") if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                raise DataError(f"{path} has no {missing[0]!r}: it holds {', '.join(map(repr, file)) or 'nothing'}")
            for key in ("image", "label"):
                check_promise(file[key].shape, file[key].dtype.itemsize, path, zipped=True)
            image, label = file["image"][()], file["label"][()]
    except InputError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    if image.ndim != 3 or image.shape != label.shape:
        raise DataError(
            f"{path}: image is {shape_text(image.shape)}, label {shape_text(label.shape)}; expected slices × rows ×"
            " columns of each"
        )
    return image, label


def _zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _complete(image: Any, stored: Path) -> Any:
    """Return `image` with its voxels read from the whole file `stored`.

    Raises DataError if more follows after the last voxel that the header declares. gzip raises an error if the end is
    missing or the checksum is wrong.
    """
    voxels = int(np.prod([int(n) for n in image.shape], dtype=object))
    declared = int(image.dataobj.offset) + voxels * image.get_data_dtype().itemsize
    if not _zipped(stored):
        with stored.open("rb") as stream:
            stream.seek(declared)
            check_end(stream, stored)
        return image
    with igzip.open(stored) as stream:  # the same checks as gzip, in half the time
        content = stream.read(declared)
        check_end(stream, stored)
    files = dict(image.file_map)
    files["image"] = nib.FileHolder(fileobj=io.BytesIO(content))
    return type(image).from_file_map(files)


def _check_own(file: h5py.File, key: str, path: Path) -> None:
    """Raise DataError if a data set of an h5 file lies in another file. What a file points at is never followed."""
    link = file.get(key, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise DataError(
            f"{path}: {key!r} is a link to another place, which is not followed: store the voxels themselves"
        )
    kept = file.get(key)
    if isinstance(kept, h5py.Dataset) and (kept.is_virtual or kept.external):
        raise DataError(
            f"{path}: the voxels of {key!r} lie in other files, which are not followed: store them in this one"
        )


def _oriented(image: Any) -> bool:
    """Return whether the header gives the patient's orientation. An Analyze header cannot."""
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti1Pair)):
        return False
    return bool(image.header["sform_code"] > 0 or image.header["qform_code"] > 0)
