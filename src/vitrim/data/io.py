"""Read one image file. A damaged or unsuitable file raises DataError with a message of one line."""

from __future__ import annotations

import gzip
import io
import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import nibabel as nib
import numpy as np

from vitrim.config.names import VoxelSize
from vitrim.data.geometry import geometry
from vitrim.data.intensity_scale import PLAIN, Scale, scaled
from vitrim.errors import DataError, InputError

DEFLATE_LIMIT = 1032
"""Largest compression factor of deflate. A header that declares more voxels than this allows is damaged."""

PADDING = 512
"""Largest number of bytes after the last voxel. They must be zero: some programs fill a file up."""


# nibabel tells what it repaired in a header on stderr; what matters of that is checked here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


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


def read_nifti(path: Path, voxel_size: VoxelSize | None = None) -> Voxels:
    """Read a NIfTI or Analyze file, compressed or not.

    Axes of length 1 after the third are dropped; a single slice gets a third axis. The file is read to its end, so that
    gzip's checksum is compared. `voxel_size`: as in `vitrim.data.geometry`.

    Raises DataError if the file cannot be read, holds more or less than its header declares, does not hold a volume of
    numbers, has an affine that cannot be inverted, or scales intensities so that voxels become equal.
    """
    _check_file(path)
    try:
        image: Any = nib.load(path)
        stored = Path(image.file_map["image"].filename)
        _check_promise(image.shape, image.get_data_dtype(), stored, zipped=_zipped(stored))
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
    if _is_flat(image.affine) or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12 or _is_flat(affine):
        raise DataError(f"{path} has an affine that cannot be inverted: repair its header")
    return Voxels(array, affine, _oriented(image), place.doubt, scale)


def read_npz_slice(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read image and label (H, W) of one slice of the TransUNet release.

    Raises DataError if the file cannot be read, holds pickled objects, or does not hold one slice of each.
    """
    _check_file(path)
    try:
        with zipfile.ZipFile(path) as stored:
            _check_memory(sum(entry.file_size for entry in stored.infolist()), path)
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
    _check_file(path)
    try:
        with h5py.File(path, "r") as file:
            for key in ("image", "label"):
                _check_own(file, key, path)
            missing = [key for key in ("image", "label") if not isinstance(file.get(key), h5py.Dataset)]
            if missing:
                raise DataError(f"{path} has no {missing[0]!r}: it holds {', '.join(map(repr, file)) or 'nothing'}")
            for key in ("image", "label"):
                _check_promise(file[key].shape, file[key].dtype, path, zipped=True)
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


def unreadable(path: Path, error: BaseException) -> DataError:
    """Return a DataError that says in one line that a file cannot be read, and why."""
    return DataError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}")


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as text, for example 12×10×6."""
    return "×".join(str(n) for n in shape)


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
            _check_end(stream, stored)
        return image
    with gzip.open(stored) as stream:
        content = stream.read(declared)
        _check_end(stream, stored)
    files = dict(image.file_map)
    files["image"] = nib.FileHolder(fileobj=io.BytesIO(content))
    return type(image).from_file_map(files)


def _check_end(stream: IO[bytes] | gzip.GzipFile, stored: Path) -> None:
    """Read `stream` to its end. Raises DataError if more than a little padding with zeros is left."""
    rest, length, padding = stream.read(1 << 20), 0, True
    while rest:
        length, padding = length + len(rest), padding and not any(rest[:PADDING])
        rest = stream.read(1 << 20)
    if length > PADDING or not padding:
        raise DataError(f"{stored} is damaged: it holds {length} bytes more than its header declares")


def _check_promise(shape: tuple[int, ...], kind: np.dtype[Any], stored: Path, zipped: bool) -> None:
    """Raise DataError if a header declares more voxels than the file can hold, before memory is allocated."""
    voxels = float(np.prod([float(n) for n in shape]))
    room = stored.stat().st_size * (DEFLATE_LIMIT if zipped else 1)
    if voxels * kind.itemsize > room:
        raise DataError(f"{stored} is damaged: its header declares {voxels:.3g} voxels, more than the file can hold")
    _check_memory(voxels * kind.itemsize, stored)


def _check_file(path: Path) -> None:
    """Raise DataError unless there is a regular file: reading from a pipe would wait for ever."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file" if path.exists() else f"no such file: {path}")


def _check_memory(size: float, path: Path) -> None:
    """Raise DataError if content of this many bytes does not fit into the memory of this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not known on this system
        return
    if size > memory:
        raise DataError(
            f"{path} declares {size / 2**30:.3g} GiB of content; this machine has {memory / 2**30:.3g} GiB of memory"
        )


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


def _is_flat(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) is not finite or loses a direction: an axis has no orientation."""
    return not np.isfinite(affine).all() or bool(np.isnan(nib.orientations.io_orientation(affine)).any())


def _oriented(image: Any) -> bool:
    """Return whether the header gives the patient's orientation. An Analyze header cannot."""
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti1Pair)):
        return False
    return bool(image.header["sform_code"] > 0 or image.header["qform_code"] > 0)
