"""Finds DICOM series, checks that their slices make a volume, and reads them.

pydicom reads the headers and SimpleITK the voxels; both are loaded only when a DICOM file is met. A path stands for a
series: a folder for the only series in it, a file for the series in its folder to which it belongs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.data.file_checks import unreadable
from vitrim.data.io import Voxels
from vitrim.data.itk_files import itk_reason, simpleitk, voxels_of
from vitrim.errors import DataError, InputError

ENDINGS = (".dcm", ".dicom", ".ima")

MARK = b"DICM"
"""These letters follow the first 128 bytes of every DICOM file; many have no ending in their name."""

EVEN = 0.02
"""Largest deviation of a distance between slices, relative to the distance, that counts as rounding."""

ROUNDED = 0.02
"""The same in mm."""

ASIDE = 0.1
"""Largest shift of a slice within its plane, in voxels: the tolerance between image and label."""

SHARED = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
"""What all slices of a volume have in common."""

TAGS = (
    *SHARED,
    *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImagePositionPatient"),
    *("NumberOfFrames", "SamplesPerPixel", "RescaleSlope"),
)


@dataclass(frozen=True)
class Slice:
    """The header of one DICOM file, as far as it is read."""

    path: Path
    header: Any

    def get(self, tag: str) -> Any:
        """Return the value of a tag; None if there is none."""
        value = self.header.get(tag)
        return None if value in (None, "") else value


@dataclass(frozen=True)
class Series:
    """The files of one DICOM series in one folder, not yet in the order of their places."""

    uid: str
    slices: tuple[Slice, ...]

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.slices[0].path.parent

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of the files."""
        return tuple(one.path for one in self.slices)

    @property
    def number(self) -> str:
        """The series number; 0 if there is none."""
        return str(self.slices[0].get("SeriesNumber") or 0)

    @property
    def about(self) -> str:
        """What it is, for the user: `MR, "T1 sagittal", 160 files`."""
        first = self.slices[0]
        description = " ".join(str(first.get("SeriesDescription") or "").split())
        parts = [str(first.get("Modality") or "unknown"), f'"{description}"' if description else ""]
        return ", ".join([*filter(None, parts), f"{len(self.slices)} file{'s' if len(self.slices) != 1 else ''}"])


@dataclass(frozen=True)
class Scans:
    """What DICOM files hold."""

    series: tuple[Series, ...] = ()
    damaged: dict[Path, str] = field(default_factory=dict)
    """Files that cannot be read, and why"""
    without_image: tuple[Path, ...] = ()
    """Reports, structures, directories"""


def is_dicom(path: Path) -> bool:
    """Whether a file is named as a DICOM file, or is one that has no ending in its name (such as IM0001, 1.2.840.1)."""
    if path.name.lower().endswith(ENDINGS):
        return path.is_file()
    ending = path.suffix[1:]
    if (ending and not ending.isdigit()) or path.name.startswith(".") or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == MARK
    except OSError:
        return False


def find_series(files: Iterable[Path]) -> Scans:
    """Return the series of images in DICOM files, and the other files. No voxels are read."""
    files = sorted(files)
    if not files:
        return Scans()
    read = _pydicom(files[0])
    found: dict[tuple[Path, str], list[Slice]] = {}
    damaged: dict[Path, str] = {}
    without_image: list[Path] = []
    for path in files:
        try:
            one = Slice(path, read(path, stop_before_pixels=True, specific_tags=list(TAGS)))
            uid, image = one.get("SeriesInstanceUID"), one.get("Rows")
        except Exception as error:  # pydicom raises many kinds
            damaged[path] = str(unreadable(path, error))
            continue
        if uid is None or image is None:
            without_image.append(path)
        else:
            found.setdefault((path.parent, str(uid)), []).append(one)
    series = tuple(Series(uid, tuple(slices)) for (_, uid), slices in sorted(found.items()))
    return Scans(series, damaged, tuple(without_image))


def series_at(path: Path) -> Series:
    """Return the series for which a path stands. Raises DataError if there is none, or more than one."""
    folder = path if path.is_dir() else path.parent
    found = find_series(file for file in folder.iterdir() if is_dicom(file))
    if path in found.damaged:
        raise DataError(found.damaged[path])
    if path.is_dir() and found.damaged:  # it may be one of the slices
        raise DataError(next(iter(found.damaged.values())))
    series = [one for one in found.series if path.is_dir() or path in one.files]
    if not series:
        raise DataError(
            f"{path} holds no DICOM series" if path.is_dir() else f"{path} is a DICOM file without an image"
        )
    if len(series) > 1:
        named = "; ".join(one.about for one in series[:10])
        raise DataError(f"{path} holds {len(series)} DICOM series ({named}): put each into a folder of its own")
    return series[0]


def read_series(path: Path) -> Voxels:
    """Read the DICOM series for which `path` stands, with the rescale slope and intercept of each slice applied.

    Raises InputError if pydicom or SimpleITK is missing. Raises DataError if the slices do not make one volume: slices
    are missing or unevenly spaced, lie at one place, differ in size or direction, or are sheared by a gantry tilt.
    """
    series = series_at(path)
    sitk = simpleitk(f"reading {path}")
    ordered = _in_order(series, path)
    try:
        # float32 holds what each slice's own rescale gives; SimpleITK would take the type of the first slice for all
        image = sitk.ReadImage([str(one.path) for one in ordered], sitk.sitkFloat32)
    except RuntimeError as error:
        raise unreadable(path, itk_reason(error)) from error
    return voxels_of(sitk, image, path, oriented=True)


def _in_order(series: Series, path: Path) -> list[Slice]:
    """Return the slices in the order of their places along the normal of their plane, after all checks."""
    first = series.slices[0]
    for one in series.slices:
        _check_slice(one, first)
    if len(series.slices) == 1:
        return [first]
    across, down = np.array(first.get("ImageOrientationPatient"), np.float64).reshape(2, 3)
    normal = np.cross(across, down)
    ordered = sorted(series.slices, key=lambda one: float(normal @ _position(one)))
    positions = np.array([_position(one) for one in ordered])
    places = positions @ normal
    steps = np.diff(places)
    least = float(steps.min())
    if least < 1e-3:
        n = int(steps.argmin())
        raise DataError(
            f"{path}: {ordered[n].path.name} and {ordered[n + 1].path.name} lie at one place: the series holds several "
            "volumes; put each into a folder of its own"
        )
    rounded = max(EVEN * least, ROUNDED)
    widest = int(steps.argmax())
    if float(np.abs(steps - np.median(steps)).max()) > rounded:
        between = f"between {ordered[widest].path.name} and {ordered[widest + 1].path.name}"
        multiples = steps / least
        if float(np.abs(multiples - np.rint(multiples)).max()) * least <= rounded:
            missing = int(np.rint(multiples).sum()) - len(steps)
            raise DataError(
                f"{path}: slices are missing, {missing} of {missing + len(ordered)} (the widest gap is {between}): add "
                "them, or resample the series"
            )
        raise DataError(
            f"{path}: its slices are unevenly spaced, {least:.4g} to {float(steps.max()):.4g} mm (the widest gap is "
            f"{between}): resample the series first"
        )
    _check_line(path, positions, normal, first)
    return ordered


def _check_line(path: Path, positions: np.ndarray, normal: np.ndarray, first: Slice) -> None:
    """Raise DataError unless the positions (S, 3) of the slices lie on a line along the normal of their plane."""
    way = positions - positions[0]
    aside = way - np.outer(way @ normal, normal)
    if float(np.linalg.norm(aside, axis=1).max()) <= ASIDE * min(float(mm) for mm in first.get("PixelSpacing")):
        return
    angle = float(np.degrees(np.arctan2(np.linalg.norm(aside[-1]), abs(way[-1] @ normal))))
    straight = np.outer(way @ normal / (way[-1] @ normal), aside[-1])
    if float(np.linalg.norm(aside - straight, axis=1).max()) > float(np.linalg.norm(aside[-1])) * 0.1:
        raise DataError(f"{path}: its slices do not lie on a straight line: the series is no volume")
    raise DataError(
        f"{path}: its slices are sheared by a gantry tilt of {angle:.1f}°: resample the series first, for example with "
        "dcm2niix"
    )


def _check_slice(one: Slice, first: Slice) -> None:
    """Raise DataError unless a file holds one grey slice that says where it lies and is like the first one."""
    frames = int(one.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DataError(
            f"{one.path} holds {frames} frames, which vitrim does not read: convert it, for example with dcm2niix"
        )
    if int(one.get("SamplesPerPixel") or 1) != 1:
        raise DataError(f"{one.path} is a colour image: expected grey values")
    for tag in (*SHARED, "ImagePositionPatient"):
        if one.get(tag) is None:
            raise DataError(f"{one.path} has no {tag}: it does not say where its slice lies")
        values = np.atleast_1d(np.array(one.get(tag), np.float64))
        if not np.isfinite(values).all():
            raise DataError(f"{one.path} is damaged: its {tag} is {one.get(tag)}")
        if tag in SHARED and not np.allclose(values, np.atleast_1d(np.array(first.get(tag), np.float64)), atol=1e-3):
            raise DataError(
                f"the slices of one series differ in {tag}: {first.get(tag)} in {first.path} and {one.get(tag)} in "
                f"{one.path.name}"
            )
    across, down = np.array(one.get("ImageOrientationPatient"), np.float64).reshape(2, 3)
    if not np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=1e-3):
        raise DataError(f"{one.path} is damaged: its ImageOrientationPatient is {one.get('ImageOrientationPatient')}")
    slope = one.get("RescaleSlope")
    if slope is not None and not (np.isfinite(float(slope)) and float(slope)):
        raise DataError(f"{one.path} is damaged: its RescaleSlope is {slope}")


def _position(one: Slice) -> np.ndarray:
    return np.array(one.get("ImagePositionPatient"), np.float64)


def _pydicom(path: Path) -> Any:
    """Return pydicom's reader. Raises InputError that says how to install it."""
    try:
        from pydicom import config, dcmread
    except ImportError as error:
        raise InputError(f"reading {path} needs pydicom: pip install 'vitrim[formats]'") from error
    config.settings.reading_validation_mode = config.IGNORE  # what matters of a header is checked here
    return dcmread
