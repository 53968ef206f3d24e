"""Medical Segmentation Decathlon and nnU-Net: dataset.json, imagesTr, labelsTr.

The reader accepts the dataset.json of the Decathlon (https://medicaldecathlon.com), of nnU-Net version 1 (the same, but
with one file per channel) and of nnU-Net version 2 (labels by name, no list of cases). It also accepts a folder without
dataset.json if the configuration names the classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.formats import EXPECTED, is_volume, members, volumes
from vitrim.data.picture_files import is_picture
from vitrim.data.readers import find_files
from vitrim.data.readers.dataset_json import NAME, channel_names, description
from vitrim.data.readers.dataset_lists import Listed, case_id, is_used, listed_cases
from vitrim.data.readers.find_files import some
from vitrim.data.readers.label_regions import Labels, parse_labels
from vitrim.data.readers.layout import Layout
from vitrim.errors import DataError

CHANNEL = re.compile(r"^(?P<id>.+)_(?P<channel>\d{4})$")
"""nnU-Net appends the channel number to the case name."""


def read(config: DataConfig, folder: Path) -> CaseSet:
    """Find the cases of a Decathlon or nnU-Net folder. Problems with single cases are listed in `problems`.

    Raises DataError if the folder holds no case, if dataset.json is damaged, or if the classes are not clear.
    """
    content = description(folder)
    listed = listed_cases(folder, content)
    if listed is None and not (folder / "imagesTr").is_dir():
        raise DataError(f"no cases in {folder}: it has no folder imagesTr (Decathlon and nnU-Net layout)")
    labels = _labels(config, folder, content)
    channels = channel_names(content)
    only = _file_ending(folder, content)
    found = _in_folders(folder, only) if listed is None else _with_channels(listed, folder, only)
    problems: list[str] = []
    cases = []
    for one in found:
        case = Case(one.id, one.images, one.label, split=one.split)
        problem = _problem(case, folder, len(channels))
        if problem:
            problems.append(problem)
        else:
            cases.append(case)
    if not cases and not problems:
        raise DataError(f"no cases in {folder}: no volumes in imagesTr and labelsTr: expected {EXPECTED}")
    if not channels and cases:
        channels = tuple(f"channel {n}" for n in range(len(cases[0].images)))
    used = {path for one in found for path in (*one.images, one.label) if path}
    return CaseSet(
        "decathlon",
        folder,
        tuple(cases),
        labels.classes,
        labels.values,
        channels,
        regions=labels.regions,
        problems=tuple(problems),
        unused=_unused(folder, content, only, used),
        notes=_notes(labels, content),
    )


def _labels(config: DataConfig, folder: Path, content: dict[str, Any]) -> Labels:
    """Return the meaning of the label values, from dataset.json or, without one, from the configuration."""
    if not content:
        if not config.classes:
            raise DataError(f"{folder} has no {NAME}: name the classes in the configuration (data.classes)")
        names = ["background", *config.classes]
        return Labels({n: n for n in range(len(names))}, dict(enumerate(names)))
    labels = parse_labels(folder / NAME, content)
    names = [*labels.classes.values()]
    if config.classes is not None and names[1:] != config.classes:
        raise DataError(
            f"{folder / NAME} names the classes {', '.join(names[1:])}, but the configuration"
            f" names {', '.join(config.classes)}: make them agree, in the order of the label values"
        )
    return labels


def _notes(labels: Labels, content: dict[str, Any]) -> tuple[str, ...]:
    """Say what is done with regions and with MONAI's folds."""
    notes = []
    if labels.regions:
        parts = ", ".join(name for n, name in labels.classes.items() if n)
        notes.append(
            f"the labels are regions: a network learns their exclusive parts ({parts}), and the regions are evaluated"
        )
    if any(isinstance(entry, dict) and "fold" in entry for entry in content.get("training") or ()):
        notes.append(f"the `fold` of the cases in {NAME} is not used: data.folds divides the cases anew")
    return tuple(notes)


def _in_folders(folder: Path, only: str) -> list[Listed]:
    """Return the cases that the files in imagesTr and labelsTr are."""
    labels = _by_id(folder / "labelsTr", only)
    images = _by_case(folder / "imagesTr", set(labels), only)
    return [Listed(id, images.get(id, ()), labels.get(id)) for id in sorted(images.keys() | labels.keys())]


def _with_channels(listed: list[Listed], folder: Path, only: str) -> list[Listed]:
    """Return the listed cases; an image that is not there stands for its channels, as in nnU-Net version 1."""
    below = folder / "labelsTr"
    ids = {case_id(one.label, below) for one in listed if one.label and below in one.label.parents}
    by_case = _by_case(folder / "imagesTr", ids, only)
    return [
        one if len(one.images) > 1 or one.images[0].exists() else replace(one, images=by_case.get(one.id, one.images))
        for one in listed
    ]


def _file_ending(folder: Path, content: dict[str, Any]) -> str:
    """Return nnU-Net's `file_ending`, in small letters; empty if dataset.json names none.

    Raises DataError if it is not that of a volume.
    """
    named = content.get("file_ending", "")
    if isinstance(named, str) and is_picture(Path("x" + named)):
        raise DataError(f"{folder / NAME}: file_ending is {named!r}: use the layout pictures (data.layout)")
    if not isinstance(named, str) or (named and not is_volume(Path("x" + named))):
        raise DataError(f"{folder / NAME}: file_ending is {named!r}: vitrim reads {EXPECTED}")
    return named.lower()


def _by_id(folder: Path, only: str) -> dict[str, Path]:
    """Return case id to volume, for the names that end in `only`.

    Raises DataError if two files have the same id, for example x.nii and x.nii.gz.
    """
    found: dict[str, Path] = {}
    for path in _volumes(folder):
        if not path.name.lower().endswith(only):
            continue
        other = found.setdefault(case_id(path, folder), path)
        if other != path:
            raise DataError(f"{other} and {path} would both be case {case_id(path, folder)}: rename or remove one")
    return found


def _by_case(folder: Path, labels: set[str], only: str) -> dict[str, tuple[Path, ...]]:
    """Return case id to images, in the order of the channels.

    Four digits at the end of every name are the number of a channel, unless a label (ids in `labels`) has such a name.
    """
    files = _by_id(folder, only)
    numbered = {id: CHANNEL.match(id) for id in files}
    if files and all(numbered.values()) and not labels & files.keys():
        cases: dict[str, list[Path]] = {}
        for id, match in sorted(numbered.items()):
            if match:
                cases.setdefault(match["id"], []).append(files[id])
        return {id: tuple(paths) for id, paths in cases.items()}
    return {id: (path,) for id, path in files.items()}


def _volumes(folder: Path) -> list[Path]:
    return volumes(find_files.files(folder)) if folder.is_dir() else []


def _unused(folder: Path, content: dict[str, Any], only: str, used: set[Path]) -> tuple[str, ...]:
    """Say what of the data set no case uses: other lists, files that are not listed, files that are no images."""
    lines = [
        f"the list {key!r} in {NAME} is not used ({len(value)} entries)"
        for key, value in content.items()
        if not is_used(content, key) and isinstance(value, list) and any(isinstance(one, (str, dict)) for one in value)
    ]
    for name in ("imagesTr", "labelsTr"):
        below = list(find_files.files(folder / name)) if (folder / name).is_dir() else []
        parts = {part for path in _volumes(folder / name) for part in (path, *members(path), path.with_suffix(".img"))}
        images = [path for path in _volumes(folder / name) if path not in used]
        others = [path for path in below if path not in parts]
        listed = "does not list them" + (f" or names the file_ending {only}" if only else "")
        for paths, why in (
            (images, f"are not used, because dataset.json {listed}"),
            (others, "are not read, because they have no format that vitrim reads"),
        ):
            if paths:
                lines.append(f"{len(paths)} files in {name} {why}: {some([path.name for path in paths])}")
    return tuple(lines)


def _problem(case: Case, folder: Path, channels: int) -> str | None:
    """Return the first problem with the files of a case, in one line; None if there is none."""
    missing = [path for path in case.images if not path.exists()]
    if not case.images:
        return f"label without its image: {case.label}"
    if missing:
        where = "" if missing[0].is_relative_to(folder) else f" ({NAME} names it outside {folder})"
        return f"image is missing: {missing[0]}{where}"
    if case.label is None:
        return f"image without its label: {case.images[0]} (expected {folder / 'labelsTr' / case.id}.nii.gz)"
    if not case.label.exists():
        return f"image without its label: {case.images[0]} (expected {case.label})"
    if channels and len(case.images) not in (1, channels):
        return f"case {case.id} has {len(case.images)} of {channels} channels in {folder / 'imagesTr'}"
    return None


LAYOUT = Layout("decathlon", read)
