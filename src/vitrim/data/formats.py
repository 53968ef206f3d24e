"""The formats of volumes: which endings a name has, which library reads them, and which files belong to one volume.

NIfTI and Analyze are read with nibabel. NRRD, MetaImage and DICOM need SimpleITK and pydicom (`vitrim[formats]`).
A path stands for a volume; for a DICOM series it is the folder of its files, or one of them. A picture is read as a
volume of one slice; no name of a picture is one of a volume, so that pictures are read only where they are expected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitrim.config.names import VoxelSize
from vitrim.data.dicom import is_dicom, read_series, series_at
from vitrim.data.io import Voxels, as_volume, read_nifti
from vitrim.data.itk_files import read_itk
from vitrim.data.picture_files import ENDINGS as PICTURES
from vitrim.data.picture_files import is_picture, read_picture
from vitrim.data.text_headers import read_text_header
from vitrim.errors import DataError, InputError


@dataclass(frozen=True)
class Format:
    """A format of volumes in files."""

    title: str
    endings: tuple[str, ...]
    library: Literal["nibabel", "SimpleITK"]
    """What reads and writes it"""
    beside: dict[str, str] = field(default_factory=dict)
    """Ending of a header to the ending that its file of voxels gets when vitrim writes it"""


FORMATS = (
    Format("NIfTI", (".nii.gz", ".nii"), "nibabel"),
    Format("Analyze", (".hdr",), "nibabel", {".hdr": ".img"}),
    Format("NRRD", (".seg.nrrd", ".nrrd", ".nhdr"), "SimpleITK", {".nhdr": ".raw"}),
    Format("MetaImage", (".mha", ".mhd"), "SimpleITK", {".mhd": ".raw"}),
)

ENDINGS = tuple(ending for one in FORMATS for ending in one.endings)

HEADLESS = (".img", ".raw", ".zraw")
"""Endings of files of voxels, whose header is another file."""

FOREIGN = (
    *HEADLESS,
    *(".mgz", ".mgh", ".mnc", ".gipl", ".vtk", ".vti", ".dcm", ".npz", ".npy", ".h5"),
    *PICTURES,
)
"""Endings of images that vitrim does not write as label maps of volumes."""

EXPECTED = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


def ending(path: Path) -> str:
    """Return the ending of a volume's name, in small letters; empty if it has none of `ENDINGS`."""
    return next((one for one in ENDINGS if path.name.lower().endswith(one)), "")


def is_volume(path: Path) -> bool:
    """Whether a name ends as that of a volume does, in small or capital letters."""
    return bool(ending(path))


def format_of(path: Path) -> Format | None:
    """Return the format that a name's ending says; None if it says none."""
    return next((one for one in FORMATS if ending(path) in one.endings), None)


def stem(path: Path) -> str:
    """Return the name of the file of a volume or picture without its ending; the whole name of any other file."""
    return path.stem if is_picture(path) else path.name[: len(path.name) - len(ending(path))]


def volumes(files: Iterable[Path]) -> list[Path]:
    """Return the paths that stand for the volumes in `files`: each folder of DICOM files stands for one."""
    found = [path if is_volume(path) else path.parent for path in files if is_volume(path) or is_dicom(path)]
    return list(dict.fromkeys(found))


def members(path: Path) -> tuple[Path, ...]:
    """Return all files of a volume: the header and its file of voxels, or the files of a series.

    Where they cannot be told, because the volume is damaged or a library is missing: `path`, or all files in it.
    """
    try:
        if path.is_dir() or is_dicom(path):
            return series_at(path).files
        if ending(path) == ".hdr":
            pair = path.with_suffix(".img")
            return (path, pair) if pair.exists() else (path,)
        kind = format_of(path)
        if kind is not None and kind.library == "SimpleITK":
            data = read_text_header(path).data
            return (path,) if data == path else (path, data)
    except InputError:
        return tuple(sorted(file for file in path.iterdir() if file.is_file())) if path.is_dir() else (path,)
    return (path,)


def data_file(path: Path) -> Path | None:
    """Return the file of voxels that writing `path` also makes; None if all goes into `path`."""
    kind = format_of(path)
    own = kind.beside.get(ending(path)) if kind else None
    return path.with_name(stem(path) + own) if own else None


def read_voxels(path: Path, voxel_size: VoxelSize | None = None) -> Voxels:
    """Read the volume, or the picture, for which a path stands. `voxel_size`: as in `vitrim.data.geometry`, for NIfTI.

    Raises InputError if a library is missing, and DataError if the volume cannot be read or has an unknown format.
    """
    if path.is_dir() or is_dicom(path):
        return read_series(path)
    if is_picture(path):
        return as_volume(read_picture(path))
    kind = format_of(path)
    if kind is None:
        raise DataError(unknown(path))
    return read_nifti(path, voxel_size) if kind.library == "nibabel" else read_itk(path)


def unknown(path: Path) -> str:
    """Say that a file has no format that vitrim reads, and which it reads."""
    return f"{path} has no format that vitrim reads: expected a name that ends in {EXPECTED}, or a DICOM series"
