"""Reads dataset.json, in which the Decathlon, nnU-Net and sets of pictures describe their labels and channels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from vitrim.errors import DataError, InputError
from vitrim.files import parse_json

NAME = "dataset.json"

IGNORED = (
    "{}: `ignore` is not supported: give these voxels a class (0, the background) in the label files, or leave out the "
    "cases that have some; then take `ignore` out of `labels`"
)
"""Says that nnU-Net's label `ignore` is refused, and the way out."""


def description(folder: Path) -> dict[str, Any]:
    """Return the content of the dataset.json in a folder; nothing if there is none.

    Raises DataError if it is damaged, gives a key twice, has no `labels`, or has other names of channels than 0, 1, ….
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        content = parse_json(path, object_pairs_hook=_unique)
    except InputError as error:
        raise DataError(str(error)) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise DataError(f"{path} has no `labels`: expected the classes, name to value")
    for key in ("channel_names", "modality"):
        names = content.get(key, {})
        if not isinstance(names, dict) or not all(is_number(number) for number in names):
            raise DataError(f"{path}: {key} must map 0, 1, … to the names of the channels")
    return content


def channel_names(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels, in order; none if dataset.json does not give them."""
    names = content.get("channel_names") or content.get("modality") or {}
    return tuple(str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0])))


def is_number(value: Any) -> bool:
    """Whether a value is a whole number from 0, also as text ("1"); True and False are none."""
    return (isinstance(value, int) and not isinstance(value, bool) and value >= 0) or (
        isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10
    )


def named_values(path: Path, labels: dict[str, Any], value_of: Callable[[str, Any], Any]) -> dict[Any, str]:
    """Return value to name of the `labels` of a dataset.json, which maps name to value or, in numbers, value to name.

    `value_of` turns the name and the value of a label into what a label file holds, or raises DataError. Raises
    DataError if a value or a name is given twice.
    """
    named: dict[Any, str] = {}
    for key, given in labels.items():
        # the Decathlon and nnU-Net version 1 map value to name
        name, value = (given, key) if is_number(key) and isinstance(given, str) else (key, given)
        value = value_of(name, value)
        if value in named:
            raise DataError(f"{path}: label value {value} has two names, {named[value]!r} and {name!r}")
        if name in named.values():
            raise DataError(f"{path}: two label values have the name {name!r}: give each class its own name")
        named[value] = name
    return named


def inside(folder: Path, name: str, source: str = NAME) -> Path:
    """Return the path of `name` in `folder`. If it leaves the folder, DataError names the file `source`."""
    path = Path(os.path.normpath(folder / PurePosixPath(name.replace("\\", "/"))))
    if not path.is_relative_to(os.path.normpath(folder)) or path == Path(os.path.normpath(folder)):
        raise DataError(f"{folder / source}: {name} is not a path inside the folder")
    return folder / path.relative_to(os.path.normpath(folder))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON. Raises ValueError if a key is given twice: JSON keeps the last without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return content
