"""Labels of nnU-Net's dataset.json as exclusive classes: plain values, or regions that overlap.

A network of vitrim gives each voxel one class. Regions are therefore trained as their exclusive parts, one class for
each value in the label files, and evaluated as regions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrim.data.readers.dataset_json import IGNORED, is_number, named_values
from vitrim.errors import DataError

ORDER = "regions_class_order"
"""Key of dataset.json: the value that nnU-Net writes for each region; a later one overwrites an earlier one."""


@dataclass(frozen=True)
class Labels:
    """What the values of label files mean."""

    values: dict[int, int]
    """Value to class"""
    classes: dict[int, str]
    """Class to name"""
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Region to its classes; empty if there are only plain classes"""


def parse_labels(path: Path, content: dict[str, Any]) -> Labels:
    """Return the meaning of the `labels` in the dataset.json at `path`, whose content is given.

    Raises DataError if a label is `ignore` or no value, or if regions cannot be divided into classes.
    """
    labels = content["labels"]
    if "ignore" in labels:
        raise DataError(IGNORED.format(path))
    if any(isinstance(value, list) for value in labels.values()):
        return _regions(path, labels, content.get(ORDER))

    def value_of(name: str, value: Any) -> int:
        if not is_number(value):
            raise DataError(f"{path}: label {name!r}: {value!r} is not a plain class: give one value, from 0")
        return int(value)

    by_value = named_values(path, labels, value_of)
    by_value.setdefault(0, "background")
    order = sorted(by_value)
    return Labels({value: n for n, value in enumerate(order)}, {n: by_value[value] for n, value in enumerate(order)})


def _regions(path: Path, labels: dict[str, Any], order: Any) -> Labels:
    """Return one class for each region: what `regions_class_order` leaves of it after the later regions are painted."""
    parts: dict[str, list[int]] = {}
    for name, given in labels.items():
        values = given if isinstance(given, list) else [given]
        if not values or not all(is_number(value) for value in values):
            raise DataError(f"{path}: label {name!r}: {given!r} is neither a value nor a list of values")
        if [int(value) for value in values] != [0]:
            parts[name] = [int(value) for value in values]
    known = sorted({value for values in parts.values() for value in values})
    way_out = f"give one value for each region in `{ORDER}`, smaller regions later, or one plain value for each class"
    if not isinstance(order, list) or len(order) != len(parts) or not all(is_number(value) for value in order):
        raise DataError(f"{path} has regions: {', '.join(parts)}. {way_out[0].upper()}{way_out[1:]}")
    order = [int(value) for value in order]
    painted = {value: own for own, values in zip(order, parts.values(), strict=True) for value in values}
    wrong = next((value for value in known if painted[value] != value), None)
    if wrong is not None or sorted(order) != known or 0 in known:
        raise DataError(f"{path}: the regions {', '.join(parts)} with `{ORDER}` {order} are not classes: {way_out}")
    index = {0: 0, **{value: n for n, value in enumerate(order, start=1)}}
    named = {
        n: name if parts[name] == [value] else f"rest of {name}"
        for n, (name, value) in enumerate(zip(parts, order, strict=True), start=1)
    }
    regions = {name: tuple(sorted(index[value] for value in values)) for name, values in parts.items()}
    return Labels(index, {0: "background", **named}, regions)
