"""Finds the NIfTI files of each case to predict, and reads the case with its header."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib

from vitrim.config.names import VoxelSize
from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.io import unreadable
from vitrim.data.readers.decathlon import CHANNEL
from vitrim.data.readers.find_files import stem
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError

ENDINGS = (".nii.gz", ".nii")

MOST_CHANNELS = 8
"""Limit for networks of one channel: more files than this, numbered from `_0000`, are separate cases, not channels."""


@dataclass(frozen=True)
class Input:
    """A case to predict: its name, and one file for each channel or one file with all channels."""

    name: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Loaded:
    """A case in memory, and the image (without its voxels) whose header the prediction inherits."""

    volume: Volume
    image: Any


def is_nifti(path: Path) -> bool:
    """Whether the file name ends as a NIfTI file's name does."""
    return path.name.lower().endswith(ENDINGS)


def find_inputs(path: Path, channels: int) -> list[Input]:
    """Return the cases in a NIfTI file or a folder (not in its subfolders), sorted by name.

    Files that differ only in nnU-Net's ending `_0000`, `_0001`, … are the channels of one case. Other numbers are part
    of the case's name. Raises InputError if there is no NIfTI file, or if two cases would have the same name.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if is_nifti(file) and not file.name.startswith("."))
        if not files:
            raise DataError(f"no NIfTI files in {path}: expected names that end in {' or '.join(ENDINGS)}")
    elif path.is_file():
        if not is_nifti(path):
            raise DataError(f"{path} is no NIfTI file: expected a name that ends in {' or '.join(ENDINGS)}")
        files = _with_its_channels(path) if channels > 1 else [path]
    else:
        raise DataError(f"no such file or folder: {path}")
    inputs = [case for members in _by_prefix(files).values() for case in _cases(members, channels)]
    inputs.sort(key=lambda case: case.name)
    for one, other in pairwise(inputs):
        if one.name == other.name:
            raise DataError(f"{one.files[0]} and {other.files[0].name} would both be case {one.name}; rename one")
    return inputs


def load_input(case: Input, channels: int, voxel_size: VoxelSize | None = None) -> Loaded:
    """Read a case for a network with that many input channels. A network of three channels also accepts one channel.

    `voxel_size`: as in `vitrim.data.geometry`.

    Raises InputError as `load_volume` does, and if the number of channels is wrong or the file is a series of volumes.
    """
    images = [_open(file) for file in case.files]
    found = len(images)
    shape = images[0].shape
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
    return Loaded(load_volume(Case(case.name, case.files, None), about), images[0])


def _open(file: Path) -> Any:
    try:
        return nib.load(file)
    except Exception as error:
        raise unreadable(file, error) from error


def _with_its_channels(path: Path) -> list[Path]:
    """Return the file together with the other channels of its case in the same folder."""
    files = (file for file in path.parent.iterdir() if is_nifti(file) and _number(file) is not None)
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
