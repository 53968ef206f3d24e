"""The classes of masks: which value or which colour of a mask's pixels stands for which class."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Colour
from vitrim.data.picture_files import colour_text, read_picture
from vitrim.data.readers.dataset_json import IGNORED, NAME, is_number, named_values
from vitrim.errors import DataError, InputError

HEX = re.compile(r"^#[0-9a-fA-F]{6}$")

PEEKED = 5
"""Number of masks that are looked at to say which values masks hold."""


@dataclass(frozen=True)
class MaskClasses:
    """The meaning of the pixels of masks."""

    classes: dict[int, str]
    """Class to name"""
    values: dict[int, int]
    """Value to class; for masks in colours, each class to itself"""
    colours: dict[Colour, int]
    """Colour to class; empty if masks hold values"""


def mask_classes(config: DataConfig, folder: Path, content: dict[str, Any], masks: Iterable[Path]) -> MaskClasses:
    """Return the classes that dataset.json (its `content`; nothing if there is none) or the configuration names.

    Raises DataError if they are not clear. Without any, the message shows the `labels` that the first `masks` fit.
    """
    path = folder / NAME
    if not content:
        if not config.classes:
            raise DataError(f"{folder} has no {NAME}: write one that names the classes{_example(masks)}")
        names = dict(enumerate(["background", *config.classes]))
        values = {n: n for n in names}
        return MaskClasses(names, {**values, 255: 1} if len(names) == 2 else values, {})
    if "ignore" in content["labels"]:
        raise DataError(IGNORED.format(path))
    by_colour = any(not is_number(value) and not is_number(key) for key, value in content["labels"].items())
    named = named_values(path, content["labels"], _colour(path) if by_colour else _value(path))
    nothing = (0, 0, 0) if by_colour else 0
    background = next((value for value, name in named.items() if name.lower() == "background"), nothing)
    if background == nothing and named.get(nothing, "background").lower() != "background":
        raise DataError(f"{path}: no label has the name background; give it to the class that is not to be found")
    named.setdefault(background, "background")
    order = [background, *(value for value in (named if by_colour else sorted(named)) if value != background)]
    classes = {n: named[value] for n, value in enumerate(order)}
    if len(classes) < 2:
        raise DataError(f"{path} names no class but the background")
    if config.classes is not None and [*classes.values()][1:] != config.classes:
        raise DataError(
            f"{path} names the classes {', '.join([*classes.values()][1:])}, but the configuration names "
            f"{', '.join(config.classes)}: make them agree, in the order of the values or colours"
        )
    if by_colour:
        return MaskClasses(classes, {n: n for n in classes}, {colour: n for n, colour in enumerate(order)})
    return MaskClasses(classes, {value: n for n, value in enumerate(order)}, {})


def _value(path: Path) -> Callable[[str, Any], int]:
    def value(name: str, given: Any) -> int:
        if not is_number(given):
            raise DataError(f"{path}: label {name!r}: {given!r} is no value from 0")
        return int(given)

    return value


def _colour(path: Path) -> Callable[[str, Any], Colour]:
    def colour(name: str, given: Any) -> Colour:
        if isinstance(given, str) and HEX.match(given):
            return int(given[1:3], 16), int(given[3:5], 16), int(given[5:7], 16)
        if isinstance(given, list) and len(given) == 3 and all(is_number(n) and int(n) < 256 for n in given):
            return int(given[0]), int(given[1]), int(given[2])
        raise DataError(
            f'{path}: label {name!r}: {given!r} is no colour such as "#ff0000" or [255, 0, 0]; values and colours are '
            "not mixed, and regions and `ignore` are not read for pictures"
        )

    return colour


def _example(masks: Iterable[Path]) -> str:
    """Say which values or colours the first masks hold, as the labels of a dataset.json."""
    values: set[Any] = set()
    for path in list(masks)[:PEEKED]:
        try:
            array = read_picture(path)
        except InputError:
            continue
        if array.ndim == 3 and (array == array[..., :1]).all():
            array = array[..., 0]
        flat = np.unique(array.reshape(-1, *array.shape[2:]), axis=0)
        values |= {int(v) if array.ndim == 2 else colour_text(tuple(v)) for v in flat.tolist()}
    if not values or len(values) > 30 or len({type(value) for value in values}) > 1:
        return ': {"labels": {"background": 0, "NAME": 255}}'
    zero = next((value for value in (0, "#000000") if value in values), min(values))
    others = sorted(values - {zero})
    named = [("background", zero), *(("NAME" if len(others) == 1 else f"NAME{n}", v) for n, v in enumerate(others, 1))]
    return f". The first masks hold what fits {json.dumps({'labels': dict(named)})}"
