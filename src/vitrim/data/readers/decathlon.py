"""Medical Segmentation Decathlon and nnU-Net: dataset.json, imagesTr, labelsTr.

The reader accepts the dataset.json of the Decathlon (https://medicaldecathlon.com), of nnU-Net version 1 (the same, but
with one file per channel) and of nnU-Net version 2 (labels by name, no list of cases). It also accepts a folder without
dataset.json if the configuration names the classes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.formats import EXPECTED, is_volume, members, stem, volumes
from vitrim.data.readers import find_files
from vitrim.data.readers.find_files import some
from vitrim.data.readers.layout import Layout
from vitrim.errors import DataError, InputError
from vitrim.files import parse_json

CHANNEL = re.compile(r"^(?P<id>.+)_(?P<channel>\d{4})$")
"""nnU-Net appends the channel number to the case name."""


def read(config: DataConfig, folder: Path) -> CaseSet:
    """Find the cases of a Decathlon or nnU-Net folder. Problems with single cases are listed in `problems`.

    Raises DataError if the folder holds no case, if dataset.json is damaged, or if the classes are not clear.
    """
    if not (folder / "imagesTr").is_dir():
        raise DataError(f"no cases in {folder}: it has no folder imagesTr (Decathlon and nnU-Net layout)")
    description = _description(folder / "dataset.json")
    label_values, classes = _classes(config, folder, description)
    names = description.get("channel_names") or description.get("modality") or {}
    channels = tuple(str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0])))
    problems: list[str] = []
    only = _file_ending(folder, description)
    found = _listed(folder, description, only)
    if found is None:
        labels = _by_id(folder / "labelsTr", only)
        images = _by_case(folder / "imagesTr", set(labels), only)
        found = [(id, images.get(id, ()), labels.get(id)) for id in sorted(images.keys() | labels.keys())]
    cases = []
    for id, files, label in found:
        case = Case(id, tuple(files), label)
        problem = _problem(case, folder, len(channels))
        if problem:
            problems.append(problem)
        else:
            cases.append(case)
    if not cases and not problems:
        raise DataError(f"no cases in {folder}: no volumes in imagesTr and labelsTr: expected {EXPECTED}")
    if not channels and cases:
        channels = tuple(f"channel {n}" for n in range(len(cases[0].images)))
    unused = _unused(folder, description, only, {path for _, files, label in found for path in (*files, label) if path})
    return CaseSet(
        "decathlon", folder, tuple(cases), classes, label_values, channels, problems=tuple(problems), unused=unused
    )


def _description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = parse_json(path, object_pairs_hook=_unique)
    except InputError as error:
        raise DataError(str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise DataError(f"{path} has no `labels`: expected the dataset.json of the Decathlon or of nnU-Net")
    for key in ("channel_names", "modality"):
        names = content.get(key, {})
        if not isinstance(names, dict) or not all(_is_number(number) for number in names):
            raise DataError(f"{path}: {key} must map 0, 1, … to the names of the channels")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON. Raises ValueError if a key is given twice: JSON keeps the last without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return content


def _is_number(value: Any) -> bool:
    """Whether a value is a whole number from 0, also as text ("1"); True and False are none."""
    return (isinstance(value, int) and not isinstance(value, bool) and value >= 0) or (
        isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
    )


def _classes(config: DataConfig, folder: Path, description: dict[str, Any]) -> tuple[dict[int, int], dict[int, str]]:
    """Return the mappings of label value to class and of class to name."""
    if not description:
        if not config.classes:
            raise DataError(f"{folder} has no dataset.json: name the classes in the configuration (data.classes)")
        names = ["background", *config.classes]
        return {n: n for n in range(len(names))}, dict(enumerate(names))
    path = folder / "dataset.json"
    by_value: dict[int, str] = {}
    for key, value in description["labels"].items():
        # nnU-Net version 2 maps name to value
        number, name = (key, value) if _is_number(key) and isinstance(value, str) else (value, key)
        if name == "ignore" or not _is_number(number):
            raise DataError(
                f"{path}: label {key!r}: {value!r} is not a plain class (regions and `ignore` are not supported): give "
                "one value per class"
            )
        if int(number) in by_value:
            raise DataError(f"{path}: label value {number} has two names, {by_value[int(number)]!r} and {name!r}")
        if name in by_value.values():
            raise DataError(f"{path}: two label values have the name {name!r}: give each class its own name")
        by_value[int(number)] = name
    by_value.setdefault(0, "background")
    order = sorted(by_value)
    names = [by_value[value] for value in order]
    if config.classes is not None and names[1:] != config.classes:
        raise DataError(
            f"{folder / 'dataset.json'} names the classes {', '.join(names[1:])}, but the configuration"
            f" names {', '.join(config.classes)}: make them agree, in the order of the label values"
        )
    return {value: index for index, value in enumerate(order)}, dict(enumerate(names))


def _listed(
    folder: Path, description: dict[str, Any], only: str
) -> list[tuple[str, tuple[Path, ...], Path | None]] | None:
    """Return id, images and label of the cases that dataset.json lists; None if it lists none."""
    entries = description.get("training")
    if not isinstance(entries, list) or not entries:
        return None
    listed = []
    below = folder / "labelsTr"
    named = [_inside(folder, e["label"]) for e in entries if isinstance(e, dict) and isinstance(e.get("label"), str)]
    by_case = _by_case(folder / "imagesTr", {_id(path, below) for path in named if below in path.parents}, only)
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise DataError(f"{folder / 'dataset.json'}: an entry of `training` has no image: {entry!r}")
        image = _inside(folder, entry["image"])
        label = _inside(folder, entry["label"]) if isinstance(entry.get("label"), str) else None
        below = folder / "imagesTr"
        id = _id(image, below if below in image.parents else folder)
        files = (image,) if image.exists() else by_case.get(id, (image,))
        listed.append((id, files, label))
    return listed


def _inside(folder: Path, name: str) -> Path:
    """Return the path of `name` in `folder`. Raises DataError if it leaves the folder."""
    path = Path(os.path.normpath(folder / PurePosixPath(name.replace("\\", "/"))))
    if not path.is_relative_to(os.path.normpath(folder)) or path == Path(os.path.normpath(folder)):
        raise DataError(f"{folder / 'dataset.json'}: {name} is not a path inside the folder")
    return folder / path.relative_to(os.path.normpath(folder))


def _id(path: Path, folder: Path) -> str:
    """Return the case id of an image: its path in `folder` without the ending, with _ between folders."""
    return "_".join((*path.relative_to(folder).parent.parts, stem(path)))


def _file_ending(folder: Path, description: dict[str, Any]) -> str:
    """Return nnU-Net's `file_ending`, in small letters; empty if dataset.json names none.

    Raises DataError if it is not that of a volume.
    """
    named = description.get("file_ending", "")
    if not isinstance(named, str) or (named and not is_volume(Path("x" + named))):
        raise DataError(f"{folder / 'dataset.json'}: file_ending is {named!r}: vitrim reads {EXPECTED}")
    return named.lower()


def _by_id(folder: Path, only: str) -> dict[str, Path]:
    """Return case id to volume, for the names that end in `only`.

    Raises DataError if two files have the same id, for example x.nii and x.nii.gz.
    """
    found: dict[str, Path] = {}
    for path in _volumes(folder):
        if not path.name.lower().endswith(only):
            continue
        other = found.setdefault(_id(path, folder), path)
        if other != path:
            raise DataError(f"{other} and {path} would both be case {_id(path, folder)}: rename or remove one")
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


def _unused(folder: Path, description: dict[str, Any], only: str, used: set[Path]) -> tuple[str, ...]:
    """Say what of the data set no case uses: other lists, files that are not listed, files that are no images."""
    lines = [
        f"the list {key!r} in dataset.json is not used ({len(value)} entries): only `training` is"
        for key, value in description.items()
        if key != "training" and isinstance(value, list) and any(isinstance(one, (str, dict)) for one in value)
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
        return f"image is missing: {missing[0]}"
    if case.label is None:
        return f"image without its label: {case.images[0]} (expected {folder / 'labelsTr' / case.id}.nii.gz)"
    if not case.label.exists():
        return f"image without its label: {case.images[0]} (expected {case.label})"
    if channels and len(case.images) not in (1, channels):
        return f"case {case.id} has {len(case.images)} of {channels} channels in {folder / 'imagesTr'}"
    return None


LAYOUT = Layout("decathlon", read)
