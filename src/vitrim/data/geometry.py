"""The place and the voxel size of an image in millimetres, from its header: one answer for every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from vitrim.config.names import VoxelSize

MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
"""Millimetres per unit of a header; every other unit, and none, means millimetres."""

TOLERANCE = 0.01
"""Largest relative difference between two voxel sizes of one header that counts as rounding."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image are."""

    affine: np.ndarray
    """float64 (4, 4), voxel to mm in RAS+"""
    doubt: str = ""
    """How the header contradicts itself, and what was taken; empty if it does not."""


def geometry(image: Any, prefer: VoxelSize | None = None) -> Geometry:
    """Return the geometry of a nibabel image.

    A NIfTI header holds the voxel size twice: in its sform and in pixdim (which the qform uses). If they differ by more
    than 1 %, `prefer` is taken. Without it, the sform is taken, unless it gives exactly 1 mm along every axis: that is
    what programs write that know no size. Raises ValueError if the header has an undefined unit.
    """
    affine = np.array(image.affine, np.float64)
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti1Pair)):
        return Geometry(affine)
    header = image.header
    scale = MILLIMETRES.get(_unit(header), 1.0)
    affine[:3] *= scale
    if int(header["sform_code"]) <= 0:
        return Geometry(affine)
    sform = np.linalg.norm(affine[:3, :3], axis=0)
    pixdim = np.abs(np.array(header["pixdim"][1:4], np.float64)) * scale
    known = np.isfinite(pixdim) & (pixdim > 0)
    if not known.all() or not sform.all() or np.allclose(pixdim, sform, rtol=TOLERANCE, atol=0):
        return Geometry(affine)
    placeholder = np.allclose(sform, scale, rtol=1e-6, atol=0)
    taken = prefer or ("pixdim" if placeholder else "sform")
    if taken == "pixdim":
        affine[:3, :3] *= pixdim / sform
    why = "as data.voxel_size says" if prefer else (
        "because a program that knows no size writes an sform of 1" if placeholder else "because it places the grid"
    )  # fmt: skip
    return Geometry(
        affine,
        f"its header gives two voxel sizes, {_text(sform)} mm in the sform and {_text(pixdim)} mm in pixdim; "
        f"{taken} was taken, {why}",
    )


def is_flat(affine: np.ndarray) -> bool:
    """Whether an affine (4, 4) is not finite or loses a direction: an axis has no orientation."""
    return not np.isfinite(affine).all() or bool(np.isnan(nib.orientations.io_orientation(affine)).any())


def _unit(header: Any) -> str:
    """Return the unit of length of a NIfTI header. Raises ValueError if its code is not defined."""
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError as error:
        raise ValueError(f"its header has an undefined unit, code {int(header['xyzt_units'])}") from error


def _text(sizes: np.ndarray) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes)
