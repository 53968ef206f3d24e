"""Reads and writes NRRD and MetaImage files with SimpleITK, which is loaded only when such a file is met."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from vitrim.data.file_checks import shape_text, unreadable
from vitrim.data.geometry import is_flat
from vitrim.data.io import Voxels
from vitrim.data.text_headers import check_voxels, read_text_header
from vitrim.errors import DataError, InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's axes run to the patient's left, back and head; nibabel's and ours run right, to the front and to the head."""


def simpleitk(what: str) -> Any:
    """Return the module SimpleITK. Raises InputError that says how to install it, for `what` to be read or written."""
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(f"{what} needs SimpleITK: pip install 'vitrim[formats]'") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def read_itk(path: Path) -> Voxels:
    """Read an NRRD or MetaImage file.

    Raises InputError if SimpleITK is missing, and DataError if the file cannot be read, does not hold the voxels that
    its header declares, or does not hold a volume of numbers.
    """
    sitk = simpleitk(f"reading {path}")
    header = read_text_header(path)
    check_voxels(header)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise unreadable(path, itk_reason(error)) from error
    layers = image.GetNumberOfComponentsPerPixel()
    if path.name.lower().endswith(".seg.nrrd") and layers > 1:
        raise DataError(f"{path} holds overlapping segments in {layers} layers: give each voxel one segment")
    return voxels_of(sitk, image, path, header.oriented)


def voxels_of(sitk: Any, image: Any, path: Path, oriented: bool) -> Voxels:
    """Return the voxels (X, Y, Z) or (X, Y, Z, C) of a SimpleITK image, and its affine in RAS+.

    Raises DataError if it is no volume of plain numbers, or if its affine cannot be inverted.
    """
    array = sitk.GetArrayFromImage(image)  # (Z, Y, X) or (T, Z, Y, X), with the components of a voxel last
    axes = image.GetDimension()
    array = array.transpose(*range(axes - 1, -1, -1), *range(axes, array.ndim))
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if axes == 2:
        array = array[:, :, None]
    if array.dtype.kind not in "iuf" or array.ndim not in (3, 4):
        raise DataError(f"{path} holds {shape_text(array.shape)} of {array.dtype}: expected a volume of numbers")
    affine = affine_of(image)
    if is_flat(affine) or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path} has an affine that cannot be inverted: repair its header")
    return Voxels(array, affine, oriented)


def affine_of(image: Any) -> np.ndarray:
    """Return the affine (4, 4) of a SimpleITK image of two or more axes, voxel to mm in RAS+."""
    axes = image.GetDimension()
    direction = np.array(image.GetDirection(), np.float64).reshape(axes, axes) * np.array(image.GetSpacing())
    kept = min(axes, 3)
    affine = np.eye(4)
    affine[:kept, :kept] = direction[:kept, :kept]
    affine[:kept, 3] = image.GetOrigin()[:kept]
    return LPS_TO_RAS @ affine


def itk_shape(path: Path) -> tuple[int, ...]:
    """Return the length of each axis of an NRRD or MetaImage file, with its channels last. No voxels are read.

    Raises InputError as `read_itk` does.
    """
    sitk = simpleitk(f"reading {path}")
    read_text_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise unreadable(path, itk_reason(error)) from error
    return (*reader.GetSize(), *(1 for _ in range(3 - reader.GetDimension())), reader.GetNumberOfComponents())


def header_image(shape: tuple[int, ...], affine: np.ndarray, oriented: bool) -> Any:
    """Return a NIfTI image without voxels on the grid of a volume of another format.

    Its unit is mm, unless the volume does not say where it lies and has voxels of exactly 1 mm: then it knows no size.
    """
    image = nib.Nifti1Image(np.broadcast_to(np.uint8(0), shape), affine)
    if oriented:
        image.set_sform(affine, code="scanner")
        image.set_qform(affine, code="scanner")
    if oriented or not np.allclose(np.linalg.norm(affine[:3, :3], axis=0), 1):
        image.header.set_xyzt_units("mm")
    else:
        image.header["sform_code"] = 0
    return image


def write_itk(path: Path, array: np.ndarray, affine: np.ndarray, notes: dict[str, str]) -> None:
    """Write voxels (X, Y, Z) with their affine in RAS+ and texts, key to value, as NRRD or MetaImage (by the ending).

    The voxels are compressed if they lie in the same file as the header. Raises InputError if SimpleITK is missing, and
    OSError if the file cannot be written.
    """
    sitk = simpleitk(f"writing {path}")
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    placed = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(placed[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((placed[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(placed[:3, 3].tolist())
    for key, value in notes.items():
        image.SetMetaData(key, value)
    try:
        sitk.WriteImage(image, str(path), path.suffix.lower() in (".nrrd", ".mha"))
    except RuntimeError as error:
        raise OSError(str(itk_reason(error))) from error


def itk_reason(error: RuntimeError) -> RuntimeError:
    """Return an error of SimpleITK with its last line only: the lines before name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RuntimeError(re.sub(r"^(ITK ERROR: )?\w+\(0x\w+\): ", "", lines[-1]) if lines else type(error).__name__)
