"""Finds DICOM series, checks that their slices make a volume, and reads them.

pydicom reads the headers and SimpleITK the voxels; both are loaded only when a DICOM file is met. A path stands for a
series: a folder for the only series in it, a file for the series in its folder to which it belongs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.data.file_checks import unreadable
from vitrim.data.io import Voxels
from vitrim.data.itk_files import LPS_TO_RAS, itk_reason, simpleitk, voxels_of
from vitrim.errors import DataError, InputError

ENDINGS = (".dcm", ".dicom", ".ima")

VENDORS = ("1.3.12.2.1107.", "1.2.840.113619.", "1.3.46.670589.", "1.2.392.")
"""How the classes begin that vendors define for files without an image: Siemens, GE, Philips, Japanese vendors."""

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66."
"""How the classes of segmentations begin, which are no images to segment."""

MARK = b"DICM"
"""These letters follow the first 128 bytes of every DICOM file; many have no ending in their name."""

EVEN = 0.02
"""Largest deviation of a distance between slices, relative to the distance, that counts as rounding."""

ROUNDED = 0.02
"""The same in mm."""

ASIDE = 0.1
"""Largest shift of a slice within its plane, in voxels: the tolerance between image and label."""

SHARED = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "BitsAllocated", "PixelRepresentation")
"""What all slices of a volume have in common: numbers."""

LENGTHS = {"PixelSpacing": 2, "ImageOrientationPatient": 6, "ImagePositionPatient": 3}
"""Tag to the number of its values, where it is not 1."""

NUMBERS = (*SHARED, "ImagePositionPatient", "RescaleSlope", "NumberOfFrames", "SamplesPerPixel")

TEXTS = ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality")


@dataclass(frozen=True)
class Slice:
    """The header of one DICOM file, as far as it is read."""

    path: Path
    numbers: dict[str, np.ndarray]
    """Tag to values, float64 (N,); without the tags that are not there"""
    texts: dict[str, str]

    @property
    def position(self) -> np.ndarray:
        """The centre of the first pixel in mm (3,), LPS."""
        return self.numbers["ImagePositionPatient"]

    @property
    def axes(self) -> np.ndarray:
        """The directions of increasing columns, of increasing rows, and of their normal (3, 3), one a row."""
        across, down = self.numbers["ImageOrientationPatient"].reshape(2, 3)
        return np.array([across, down, np.cross(across, down)])


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
        return self.slices[0].texts.get("SeriesNumber", "0")

    @property
    def about(self) -> str:
        """What it is, for the user: `MR, "T1 sagittal", 160 files`."""
        texts = self.slices[0].texts
        description = " ".join(texts.get("SeriesDescription", "").split())
        parts = [texts.get("Modality", "unknown"), f'"{description}"' if description else ""]
        return ", ".join([*filter(None, parts), f"{len(self.slices)} file{'s' if len(self.slices) != 1 else ''}"])


@dataclass(frozen=True)
class Scans:
    """What DICOM files hold."""

    series: tuple[Series, ...] = ()
    damaged: dict[Path, str] = field(default_factory=dict)
    """Files that cannot be read, and why"""
    without_image: tuple[Path, ...] = ()
    """Reports, structures, segmentations, directories"""
    pydicom: bool = True
    """Whether pydicom is installed; without it every file counts as damaged"""


def is_dicom(path: Path) -> bool:
    """Whether a file is named as a DICOM file, or is one that has no ending in its name (such as IM0001, 1.2.840.1)."""
    if path.name.lower().endswith(ENDINGS):
        return path.is_file()
    ending = path.suffix[1:]
    if (ending and not ending.isdigit()) or path.name.startswith(".") or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return MARK in stream.read(256)  # elsewhere than after 128 bytes: damaged, not of another kind
    except OSError:
        return False


def find_series(files: Iterable[Path]) -> Scans:
    """Return the series of images in DICOM files, and the other files. No voxels are read."""
    files = sorted(files)
    if not files:
        return Scans()
    try:
        read = _pydicom(files[0])
    except InputError as error:  # other volumes of the folder can be read all the same
        return Scans(damaged=dict.fromkeys(files, str(error)), pydicom=False)
    found: dict[tuple[Path, str], list[Slice]] = {}
    damaged: dict[Path, str] = {}
    without_image: list[Path] = []
    for path in files:
        try:
            header = read(path, stop_before_pixels=True, specific_tags=["SOPClassUID", *NUMBERS, *TEXTS])
            one = Slice(path, _numbers(header), {tag: str(header[tag].value) for tag in TEXTS if header.get(tag)})
            uid, image = one.texts.get("SeriesInstanceUID"), "Rows" in one.numbers
            kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
        except Exception as error:  # pydicom raises many kinds
            damaged[path] = str(unreadable(path, error))
            continue
        if str(kind).startswith(SEGMENTATION):
            without_image.append(path)
        elif uid is not None and image:
            found.setdefault((path.parent, uid), []).append(one)
        elif _holds_images(str(kind)):
            damaged[path] = f"{path} is damaged: it should hold an image, but its header does not describe one"
        else:
            without_image.append(path)
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
    found = voxels_of(sitk, image, path, oriented=True)
    _check_place(path, found, ordered)
    return found


def headers_in_order(path: Path) -> list[tuple[Path, Any]]:
    """Return file and header of each slice of a series, in the order in which `read_series` stacks them.

    Raises InputError as `read_series` does.
    """
    read = _pydicom(path)
    return [(one.path, read(one.path, stop_before_pixels=True)) for one in _in_order(series_at(path), path)]


def _in_order(series: Series, path: Path) -> list[Slice]:
    """Return the slices in the order of their places along the normal of their plane, after all checks."""
    first = series.slices[0]
    for one in series.slices:
        _check_slice(one, first)
    if len(series.slices) == 1:
        return [first]
    normal = first.axes[2]
    ordered = sorted(series.slices, key=lambda one: float(normal @ one.position))
    positions = np.array([one.position for one in ordered])
    steps = np.diff(positions @ normal)
    least, widest = float(steps.min()), int(steps.argmax())
    if least < 1e-3:
        n = int(steps.argmin())
        raise DataError(
            f"{path}: {ordered[n].path.name} and {ordered[n + 1].path.name} lie at one place: the series holds several "
            "volumes; put each into a folder of its own"
        )
    rounded = max(EVEN * least, ROUNDED)
    if float(np.abs(steps - np.median(steps)).max()) > rounded:
        gap = f"the widest gap is between {ordered[widest].path.name} and {ordered[widest + 1].path.name}"
        multiples = np.rint(steps / least)
        if float(np.abs(steps - multiples * least).max()) <= rounded:
            missing = int(multiples.sum()) - len(steps)
            raise DataError(
                f"{path}: slices are missing, {missing} of {missing + len(ordered)} ({gap}): add them, or resample the "
                "series"
            )
        raise DataError(
            f"{path}: its slices are unevenly spaced, {least:.4g} to {float(steps.max()):.4g} mm ({gap}): resample the "
            "series first"
        )
    _check_line(path, positions, first)
    return ordered


def _check_line(path: Path, positions: np.ndarray, first: Slice) -> None:
    """Raise DataError unless the positions (S, 3) of the slices lie on a line along the normal of their plane."""
    normal = first.axes[2]
    way = positions - positions[0]
    along = way @ normal
    aside = way - np.outer(along, normal)
    tolerance = ASIDE * float(first.numbers["PixelSpacing"].min())
    if float(np.linalg.norm(aside, axis=1).max()) <= tolerance:
        return
    straight = np.outer(along / along[-1], aside[-1])
    if float(np.linalg.norm(aside - straight, axis=1).max()) > tolerance:
        raise DataError(f"{path}: its slices do not lie on a straight line: the series is no volume")
    angle = float(np.degrees(np.arctan2(np.linalg.norm(aside[-1]), along[-1])))
    raise DataError(
        f"{path}: its slices are sheared by a gantry tilt of {angle:.1f}°: resample the series first, for example with "
        "dcm2niix"
    )


def _check_slice(one: Slice, first: Slice) -> None:
    """Raise DataError unless a file holds one grey slice that says where it lies and is like the first one."""
    frames = int(one.numbers.get("NumberOfFrames", [1])[0])
    if frames != 1:
        raise DataError(
            f"{one.path} holds {frames} frames, which vitrim does not read: convert it, for example with dcm2niix"
        )
    if one.numbers.get("SamplesPerPixel", [1])[0] != 1:
        raise DataError(f"{one.path} is a colour image: expected grey values")
    for tag in (*SHARED, "ImagePositionPatient"):
        values = one.numbers.get(tag)
        if values is None:
            raise DataError(f"{one.path} has no {tag}: it is no slice of a volume")
        if len(values) != LENGTHS.get(tag, 1) or not np.isfinite(values).all():
            raise DataError(f"{one.path} is damaged: its {tag} is {values.tolist()}")
        if tag in SHARED and not np.allclose(values, first.numbers[tag], atol=1e-3):
            raise DataError(
                f"the slices of one series differ in {tag}: {first.numbers[tag].tolist()} in {first.path} and "
                f"{values.tolist()} in {one.path.name}"
            )
    across, down, _ = one.axes
    if not np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=1e-3):
        raise DataError(f"{one.path} is damaged: its ImageOrientationPatient is no pair of directions")
    slope = one.numbers.get("RescaleSlope", np.ones(1))
    if not (np.isfinite(slope).all() and slope.all()):
        raise DataError(f"{one.path} is damaged: its RescaleSlope is {slope.tolist()}")


def _check_place(path: Path, found: Voxels, ordered: list[Slice]) -> None:
    """Raise DataError if SimpleITK places slices elsewhere: it ignores the positions of unknown classes."""
    first, last = ordered[0], ordered[-1]
    down, across = first.numbers["PixelSpacing"]
    columns = [first.axes[0] * across, first.axes[1] * down]
    said = [first.position, last.position, first.position + columns[0], first.position + columns[1]]
    indices = np.array([[0, 0, 0, 1], [0, 0, len(ordered) - 1, 1], [1, 0, 0, 1], [0, 1, 0, 1]])
    apart = (LPS_TO_RAS @ found.affine @ indices.T)[:3].T - np.array(said)
    if float(np.linalg.norm(apart, axis=1).max()) > max(ASIDE * float(min(across, down)), ROUNDED):
        raise DataError(
            f"{path}: SimpleITK places its slices elsewhere than their positions say: repair their SOPClassUID"
        )


def _holds_images(sop_class: str) -> bool:
    """Whether files of a class should hold an image; also true for a class that no one knows (it is damaged)."""
    from pydicom.uid import UID

    name = UID(sop_class).name
    return "Image" in name or (name == sop_class and not sop_class.startswith(VENDORS))


def _numbers(header: Any) -> dict[str, np.ndarray]:
    """Return the values of those of `NUMBERS` that are there. Raises ValueError if one is no number."""
    values = {tag: header[tag].value for tag in NUMBERS if tag in header}
    return {tag: np.atleast_1d(np.array(value, np.float64)) for tag, value in values.items() if value not in (None, "")}


def _pydicom(path: Path) -> Any:
    """Return pydicom's reader. Raises InputError that says how to install it."""
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise InputError(f"reading {path} needs pydicom: pip install 'vitrim[formats]'") from error
    # what matters of a header is checked here
    warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
    return dcmread
