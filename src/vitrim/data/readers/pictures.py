"""Pictures: `images/` and `masks/` of PNG, JPEG, TIFF or BMP; each picture is a case of one slice.

dataset.json names the classes, each with the value or the colour that its pixels have in the masks. It may also give
the patients and the split; dataset.csv may do so instead, and may list the pictures. The folders may also be called
`imagesTr/` and `labelsTr/`, as in nnU-Net.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.formats import stem
from vitrim.data.picture_files import EXPECTED, channels_of, is_lossy, is_picture
from vitrim.data.readers import find_files
from vitrim.data.readers.case_table import NAME as TABLE
from vitrim.data.readers.case_table import Row, read_table, split_name
from vitrim.data.readers.dataset_json import NAME, channel_names, description, inside
from vitrim.data.readers.find_files import some
from vitrim.data.readers.layout import Layout
from vitrim.data.readers.mask_classes import mask_classes
from vitrim.errors import DataError, InputError

FOLDERS = (("images", "masks"), ("imagesTr", "labelsTr"))

MASKS = ("", "_mask", "_segmentation", "_seg", "_label", "_gt")
"""Endings of a mask's name after the name of its image; the first one that exists is used."""

CHANNEL = re.compile(r"^.+_\d{4}$")
"""nnU-Net appends the channel number to the case name."""

RGB = ("red", "green", "blue")


def read(config: DataConfig, folder: Path) -> CaseSet:
    """Find the pictures and their masks. Problems with single cases are listed in `problems`.

    Raises DataError if there is no folder of images or of masks, if dataset.json or dataset.csv is damaged, or if the
    classes are not clear.
    """
    images, masks = _folders(folder)
    content = description(folder)
    meaning = mask_classes(config, folder, content, _by_id(masks).values())
    found, problems = _cases(folder, images, masks)
    cases = tuple(_grouped(found, folder, content))
    channels, notes = _channels(cases, folder, content)
    lossy = [] if meaning.colours else [case.id for case in cases if case.label and _is_lossy(case.label)]
    if lossy:
        notes.append(
            f"{len(lossy)} of {len(cases)} masks are JPEG, which changes values: each pixel was taken for the "
            "nearer of the two classes"
        )
    used = {path for case in cases for path in case.files}
    return CaseSet(
        "pictures",
        folder,
        cases,
        meaning.classes,
        meaning.values,
        channels,
        problems=tuple(problems),
        unused=() if problems else tuple(_unused((images, masks), used)),
        notes=tuple(notes),
        colours=meaning.colours,
    )


def _folders(folder: Path) -> tuple[Path, Path]:
    """Return the folders of images and of masks. Raises DataError if one is missing."""
    for images, masks in FOLDERS:
        if (folder / images).is_dir():
            if not (folder / masks).is_dir():
                raise DataError(f"{folder} has no folder {masks}: expected a mask for each picture in {images}")
            return folder / images, folder / masks
    raise DataError(f"no cases in {folder}: it has no folder images (with masks beside it; layout 'pictures')")


def _cases(folder: Path, images: Path, masks: Path) -> tuple[list[tuple[Case, Row]], list[str]]:
    """Return each case with what dataset.csv says of it, and the problems of those that are left out."""
    named = _by_id(masks)
    by_id = _without_numbers(_by_id(images), named)
    rows, problems = read_table(folder), []
    listed = {id: (path, Row(id)) for id, path in by_id.items()} if rows is None else {}
    ids = {path: id for id, path in by_id.items()}
    for row in rows or []:
        path = _listed(row.image, folder, images, by_id)
        id = ids.get(path, stem(path))
        if id in listed:
            raise DataError(f"{folder / TABLE}: {listed[id][0]} and {path} would both be case {id}: keep one of them")
        listed[id] = path, row
    cases, taken = [], set()
    for id, (path, row) in sorted(listed.items()):
        mask, wanted = _mask(id, row, folder, masks, named)
        if not path.is_file():
            problems.append(f"image is missing: {path}" + ("" if rows is None else f" ({TABLE} lists it)"))
        elif mask is None:
            problems.append(f"image without its mask: {path} (expected {wanted})")
        else:
            taken.add(mask)
            cases.append((Case(id, (path,), mask), row))
    if rows is None:
        orphans = [(id, path) for id, path in named.items() if path not in taken]
        problems += [f"mask without its image: {path}" for id, path in orphans if not _has_image(id, by_id)]
    if not cases and not problems:
        raise DataError(f"no cases in {folder}: no pictures in {images.name}: expected {EXPECTED}")
    return cases, problems


def _without_numbers(images: dict[str, Path], masks: dict[str, Path]) -> dict[str, Path]:
    """Return id to image without nnU-Net's `_0000`, if all images and no masks have it.

    Raises DataError if a picture has several files.
    """
    if not images or masks.keys() & images.keys() or not all(CHANNEL.match(id) for id in images):
        return images
    other = next((path for id, path in images.items() if not id.endswith("_0000")), None)
    if other is not None:
        raise DataError(f"{other} is one channel of a picture: join the channels into one picture in colour")
    return {id.removesuffix("_0000"): path for id, path in images.items()}


def _mask(id: str, row: Row, folder: Path, masks: Path, named: dict[str, Path]) -> tuple[Path | None, Path]:
    """Return the mask of a case (None if it is missing), and where it is expected."""
    if row.mask:
        wanted = inside(folder, row.mask, TABLE)
        return next((one for one in (wanted, masks / row.mask) if one.is_file()), None), wanted
    return next((named[id + ending] for ending in MASKS if id + ending in named), None), masks / f"{id}.png"


def _has_image(mask: str, images: dict[str, Path]) -> bool:
    """Whether a mask, by its id, has an image (of which another mask was taken)."""
    return any(mask.removesuffix(ending) in images for ending in MASKS)


def _by_id(folder: Path) -> dict[str, Path]:
    """Return case id to picture: its path in `folder` without the ending, with _ between folders.

    Raises DataError if two files have the same id.
    """
    found: dict[str, Path] = {}
    for path in find_files.files(folder):
        if is_picture(path):
            id = "_".join((*path.relative_to(folder).parent.parts, stem(path)))
            other = found.setdefault(id, path)
            if other != path:
                raise DataError(f"{other} and {path} would both be case {id}: rename or remove one")
    return found


def _listed(name: str, folder: Path, images: Path, by_id: dict[str, Path]) -> Path:
    """Return the picture that dataset.csv names by its id, by its name in `images`, or by its path."""
    if name in by_id:
        return by_id[name]
    below = inside(folder, f"{images.name}/{name}", TABLE)
    return below if below.is_file() else inside(folder, name, TABLE)


def _grouped(found: list[tuple[Case, Row]], folder: Path, content: dict[str, Any]) -> list[Case]:
    """Return the cases with their patient and their part of the split, from dataset.csv or dataset.json."""
    ids = {case.id for case, _ in found}
    patients, parts = _patients(folder / NAME, content, ids), _parts(folder / NAME, content, ids)
    for key, given in (("patient", patients), ("split", parts)):
        if given and any(getattr(row, key) for _, row in found):
            raise DataError(f"{folder / NAME} and {TABLE} both give the {key} of cases: leave it out of one of them")
    cases = [
        replace(
            case,
            patient=row.patient or patients.get(case.id, case.id),
            split=split_name(row.split, str(folder / TABLE)) or parts.get(case.id),
        )
        for case, row in found
    ]
    for what, without, where in (
        ("part of the split", [case.id for case in cases if case.split is None], NAME if parts else TABLE),
        (
            "patient",
            [case.id for case, row in found if not row.patient and case.id not in patients],
            NAME if patients else TABLE,
        ),
    ):
        if without and len(without) < len(cases):
            raise DataError(
                f"{folder / where} gives no {what} for {some(without)}: give it for every case, or for none"
            )
    return cases


def _patients(path: Path, content: dict[str, Any], ids: set[str]) -> dict[str, str]:
    """Return case id to patient, from `patients` of dataset.json."""
    given = content.get("patients", {})
    if not isinstance(given, dict) or not all(isinstance(value, (str, int)) for value in given.values()):
        raise DataError(f"{path}: `patients` must map each case to its patient")
    _known(given, ids, f"{path}: `patients`")
    return {id: str(patient) for id, patient in given.items()}


def _parts(path: Path, content: dict[str, Any], ids: set[str]) -> dict[str, str]:
    """Return case id to its part of the split, from `split` of dataset.json."""
    given = content.get("split", {})
    if not isinstance(given, dict) or not all(isinstance(value, list) for value in given.values()):
        raise DataError(f"{path}: `split` must hold the lists train and validation of cases")
    parts: dict[str, str] = {}
    for name, listed in given.items():
        part = split_name(name, f"{path}: `split`")
        _known(listed, ids, f"{path}: `split`")
        for id in listed:
            if part is None or id in parts:
                raise DataError(f"{path}: `split` names the case {id!r} twice")
            parts[id] = part
    return parts


def _known(given: Any, ids: set[str], where: str) -> None:
    unknown = [str(id) for id in given if id not in ids]
    if unknown:
        raise DataError(
            f"{where} names {some(unknown)}, which is no case: a case is named as its image, without ending"
        )


def _channels(cases: tuple[Case, ...], folder: Path, content: dict[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the channels, and a note if grey and coloured pictures are mixed."""
    given = channel_names(content)
    if len(given) not in (0, 1, 3):
        raise DataError(f"{folder / NAME} names {len(given)} channels: a picture has 1 (grey) or 3 (red, green, blue)")
    counts = {}
    for case in cases:
        try:
            counts[case.id] = channels_of(case.images[0])
        except InputError:  # said when the case is read
            continue
    grey = [id for id, count in counts.items() if count == 1]
    number = len(given) or (1 if len(grey) == len(counts) else 3)
    notes = []
    if number == 3 and grey:
        notes.append(f"{len(grey)} of {len(counts)} pictures are grey; their three channels are equal: {some(grey)}")
    return given or (RGB if number == 3 else ("grey",)), notes


def _is_lossy(mask: Path) -> bool:
    try:
        return is_lossy(mask)
    except InputError:  # said when the mask is read
        return False


def _unused(folders: tuple[Path, Path], used: set[Path]) -> list[str]:
    """Say which files in the folders of images and masks no case uses."""
    lines = []
    for folder in folders:
        left = [path for path in find_files.files(folder) if path not in used]
        for paths, why in (
            ([path for path in left if is_picture(path)], "are not used"),
            ([path for path in left if not is_picture(path)], f"are not read: expected {EXPECTED}"),
        ):
            if paths:
                lines.append(f"{len(paths)} files in {folder.name} {why}: {some([path.name for path in paths])}")
    return lines


LAYOUT = Layout("pictures", read, planar=True)
