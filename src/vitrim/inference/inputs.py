"""Finds the volumes of each case to predict, and reads the case with the header that its label map inherits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib

from vitrim.config.names import VoxelSize
from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.dicom import ENDINGS as DICOM_ENDINGS
from vitrim.data.dicom import Scans, Series, find_series, is_dicom, series_at
from vitrim.data.file_checks import unreadable
from vitrim.data.formats import EXPECTED, FOREIGN, HEADLESS, format_of, is_volume, members, stem, unknown
from vitrim.data.itk_files import header_image, itk_shape
from vitrim.data.picture_files import is_picture
from vitrim.data.readers.decathlon import CHANNEL
from vitrim.data.readers.find_files import files as files_below
from vitrim.data.readers.find_files import some
from vitrim.data.text_headers import read_text_header
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError

DEPTH = 10
"""Number of folder levels that are searched for DICOM series."""

ALL = "all"
"""Stands for every DICOM series of a folder."""

SEGMENTATION = ".seg.nrrd"

MOST_CHANNELS = 8
"""Limit for networks of one channel: more files than this, numbered from `_0000`, are separate cases, not channels."""


@dataclass(frozen=True)
class Input:
    """A case to predict: its name, and one volume for each channel or one volume with all channels."""

    name: str
    files: tuple[Path, ...]
    """Paths that stand for volumes, as in `vitrim.data.formats`"""


@dataclass(frozen=True)
class Inputs:
    """What was found."""

    cases: list[Input]
    """Sorted by name"""
    unused: list[str]
    """What the folder holds and is not predicted, counted and named, one line each"""


@dataclass(frozen=True)
class Loaded:
    """A case in memory, and the image (without its voxels) whose header the prediction inherits."""

    volume: Volume
    image: Any
    colour: bool = False
    """Whether the channels are the red, green and blue of a picture"""
    sources: list[Any] | None = None
    """Headers of the slices of a DICOM series, for a DICOM SEG; None if none is wanted"""


def find_inputs(path: Path, channels: int, series: Iterable[str] = ()) -> Inputs:
    """Return the cases at `path`: a volume's file, or a folder of them.

    The folder's own files are cases; its subfolders are searched for DICOM series only. Files that differ only in
    nnU-Net's ending `_0000`, `_0001`, … are the channels of one case. Other numbers are part of the case's name. A
    folder with several DICOM series needs `series`: the names of those to predict, or `all`.

    Raises InputError if there is no volume, if two cases would have the same name, or if `series` does not say which
    of several series to predict.
    """
    wanted = list(series)
    scans: dict[str, Series] = {}
    unused: list[str] = []
    files: list[Path] = []
    if path.is_dir():
        below = list(files_below(path, DEPTH))
        found = find_series(file for file in below if is_dicom(file))
        scans = _named(path, found.series)
        files = sorted(file for file in path.iterdir() if is_volume(file) and not file.name.startswith("."))
        files = [file for file in files if not file.name.lower().endswith(SEGMENTATION)]
        unused = _unused(path, below, files, found)
        if not files and not scans:
            raise DataError(
                f"no volumes in {path}: {unused[0] if unused else f'expected {EXPECTED}, or a DICOM series'}"
            )
    elif is_picture(path):
        raise DataError(f"{path} is a picture, and the network was trained on volumes")
    elif is_dicom(path):
        scans = {_without_ending(path): series_at(path)}
    elif path.is_file():
        if not is_volume(path):
            raise DataError(unknown(path))
        files = _with_its_channels(path) if channels > 1 else [path]
    else:
        raise DataError(f"no such file or folder: {path}")
    chosen = _chosen(path, scans, wanted)
    left = [f"{name} ({one.about})" for name, one in scans.items() if name not in chosen]
    if left:
        unused.append(f"{len(left)} DICOM series not chosen: {some(left, 20)}")
    inputs = [case for paths in _by_prefix(files).values() for case in _cases(paths, channels)]
    inputs += [Input(name, (_stands_for(one, scans),)) for name, one in chosen.items()]
    inputs.sort(key=lambda case: case.name)
    for one, other in pairwise(inputs):
        if one.name == other.name:
            raise DataError(f"{one.files[0]} and {other.files[0].name} would both be case {one.name}; rename one")
    return Inputs(inputs, unused)


def _named(path: Path, found: Iterable[Series]) -> dict[str, Series]:
    """Return name to series. A series is named after its folder; where several lie in one, also by its number.

    Raises DataError if the files of one series lie in several folders.
    """
    found = tuple(found)
    folders: dict[str, Series] = {}
    for one in found:
        other = folders.setdefault(one.uid, one)
        if other is not one:
            raise DataError(
                f"the files of one DICOM series lie in {other.folder} and {one.folder}: move them into one folder, or "
                "remove the copy"
            )
    in_folder = Counter(one.folder for one in found)
    bases = [
        "_".join(one.folder.relative_to(path).parts or (path.resolve().name,))
        + (f"_{one.number}" if in_folder[one.folder] > 1 else "")
        for one in found
    ]
    twice = Counter(bases)
    names = [
        f"{base}_{one.uid.rpartition('.')[2]}" if twice[base] > 1 else base
        for base, one in zip(bases, found, strict=True)
    ]
    return dict(sorted(zip(names, found, strict=True)))


def _chosen(path: Path, scans: dict[str, Series], wanted: list[str]) -> dict[str, Series]:
    """Return the chosen series. Raises DataError if a name is unknown, or if there are several and none is chosen."""
    named = some([f"{name} ({one.about})" for name, one in scans.items()], 20)
    unknown_names = [name for name in wanted if name != ALL and name not in scans]
    if unknown_names:
        raise DataError(f"no DICOM series {unknown_names[0]!r} in {path}: it holds {named or 'none'}")
    if len(scans) > 1 and not wanted:
        raise DataError(
            f"{path} holds {len(scans)} DICOM series: {named}. Choose with --series NAME (repeatable), or --series all"
        )
    return {name: one for name, one in scans.items() if not wanted or ALL in wanted or name in wanted}


def _stands_for(series: Series, scans: dict[str, Series]) -> Path:
    """Return the path that stands for a series: its folder, or its first file if the folder holds several."""
    alone = sum(one.folder == series.folder for one in scans.values()) == 1
    return series.folder if alone else series.files[0]


def _unused(path: Path, below: list[Path], files: list[Path], found: Scans) -> list[str]:
    """Say which files in a folder are no part of a case, grouped by the reason."""
    used = {part for file in files for part in members(file)} | {part for one in found.series for part in one.files}
    reasons: dict[str, list[str]] = {}
    for file in below:
        if file not in used and (reason := _why_unused(file, path, found)):
            reasons.setdefault(reason, []).append(str(file.relative_to(path)))
    return [
        f"{len(names)} file{'s' if len(names) != 1 else ''} ({reason}): {some(names)}"
        for reason, names in reasons.items()
    ]


def _why_unused(file: Path, folder: Path, found: Scans) -> str:
    """Say why a file below `folder` is no part of a case; empty for a file in a subfolder that is no image."""
    name = file.name.lower()
    if file in found.damaged:
        return "damaged DICOM" if found.pydicom else "DICOM, which needs pydicom: pip install 'vitrim[formats]'"
    if file in found.without_image:
        return "DICOM without an image to segment"
    if name.endswith(SEGMENTATION):
        return "segmentation"
    if is_volume(file):
        return "in a subfolder, which is searched for DICOM series only"
    if is_picture(file) and file.parent == folder:
        return "pictures, and the network was trained on volumes"
    if name.endswith(HEADLESS):
        return "voxels without their header"
    return "no format that vitrim reads" if file.parent == folder or name.endswith(FOREIGN) else ""


def load_input(case: Input, channels: int, voxel_size: VoxelSize | None = None) -> Loaded:
    """Read a case for a network with that many input channels. A network of three channels also accepts one channel.

    A picture is read as `vitrim.data.picture_files.with_channels` says. `voxel_size`: as in `vitrim.data.geometry`.

    Raises InputError as `load_volume` does, and if the number of channels is wrong or the file is a series of volumes.
    """
    planar = is_picture(case.files[0])
    found = channels if planar else len(case.files)
    shape = _shape(case.files[0])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3 and found == 1:
        found = shape[3]
        if channels == 1:
            raise DataError(
                f"{case.files[0]} is a series of {found} volumes, the network takes one volume: split the file first, "
                f"for example with nibabel.four_to_three"
            )
    if found != channels and not (found == 1 and channels == 3):
        raise DataError(
            f"{case.files[0]} has {found} channel{'s' if found != 1 else ''}, the network takes {channels}: give "
            f"{channels} files that end in _0000, _0001 and so on, or one with a fourth axis of that length"
        )
    folder = case.files[0].parent
    names = tuple(str(n) for n in range(found))
    about = CaseSet("files", folder, (), {0: "background"}, {0: 0}, names, voxel_size=voxel_size)
    volume = load_volume(Case(case.name, case.files, None), about)
    return Loaded(volume, _header(case.files[0], volume), colour=planar and channels == 3)


def _shape(path: Path) -> tuple[int, ...]:
    """Return the length of each axis of a volume, with its channels last."""
    kind = None if path.is_dir() else format_of(path)
    if kind is None:
        return (1, 1, 1)  # a DICOM series is one volume; of a picture, its reader says it
    return itk_shape(path) if kind.library == "SimpleITK" else _open(path).shape


def _header(path: Path, volume: Volume) -> Any:
    """Return the image, without its voxels, whose header a prediction inherits."""
    kind = None if path.is_dir() else format_of(path)
    if kind is not None and kind.library == "nibabel":
        return _open(path)
    oriented = not is_picture(path) and (kind is None or read_text_header(path).oriented)
    return header_image(volume.shape, volume.affine, oriented)


def _open(file: Path) -> Any:
    try:
        return nib.load(file)
    except Exception as error:
        raise unreadable(file, error) from error


def _without_ending(path: Path) -> str:
    """Return the name of a DICOM file without its ending."""
    return path.stem if path.name.lower().endswith(DICOM_ENDINGS) else path.name


def _with_its_channels(path: Path) -> list[Path]:
    """Return the file together with the other channels of its case in the same folder."""
    files = (file for file in path.parent.iterdir() if is_volume(file) and _number(file) is not None)
    members = sorted(_by_prefix(files).get(_prefix(path), []))
    return members if path in members and _are_channels(members) else [path]


def _by_prefix(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group files whose names differ only in nnU-Net's channel number."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_prefix(file), []).append(file)
    return groups


def _cases(members: list[Path], channels: int) -> list[Input]:
    """Return the cases in files with one prefix: one case of several channels, or several cases with numbered names."""
    if len(members) == 1:
        file = members[0]
        return [Input(stem(file) if _number(file) else _prefix(file), (file,))]
    if _are_channels(members) and (channels > 1 or len(members) <= MOST_CHANNELS):
        return [Input(_prefix(members[0]), tuple(members))]
    if channels == 1:
        return [Input(stem(file), (file,)) for file in members]
    raise DataError(
        f"{' and '.join(file.name for file in members)} in {members[0].parent} are not one complete case: "
        f"channels are numbered _0000, _0001 and so on; rename them"
    )


def _are_channels(members: list[Path]) -> bool:
    return [_number(file) for file in members] == list(range(len(members)))


def _prefix(file: Path) -> str:
    match = CHANNEL.match(stem(file))
    return match["id"] if match else stem(file)


def _number(file: Path) -> int | None:
    match = CHANNEL.match(stem(file))
    return int(match["channel"]) if match else None
