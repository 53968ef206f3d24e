"""Reads dataset.csv, which lists the pictures of a data set: image and, if wanted, mask, patient and split."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from vitrim.errors import DataError

NAME = "dataset.csv"

COLUMNS = ("image", "mask", "patient", "split")

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    "tuning": "tuning",
}
"""Name of a part of the split, as people write it, to ours."""


@dataclass(frozen=True)
class Row:
    """One picture of a dataset.csv; empty where it says nothing."""

    image: str
    mask: str = ""
    patient: str = ""
    split: str = ""


def read_table(folder: Path) -> list[Row] | None:
    """Return the rows of the dataset.csv in a folder; None if there is none.

    Raises DataError if it cannot be read, has no column `image`, has a column whose name is nearly one of `COLUMNS`, or
    if a row names no image.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            table = csv.DictReader(stream, delimiter=";" if ";" in first and "," not in first else ",", strict=True)
            columns = [(name or "").strip().lower() for name in table.fieldnames or []]
            table.fieldnames = columns
            rows = [
                {name: (row.get(name) or "").strip().replace("\\", "/") for name in COLUMNS}
                for row in table
                if any(isinstance(value, str) and value.strip() for value in row.values())
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for name in columns:
        near = get_close_matches(name, COLUMNS, n=1, cutoff=0.85)
        if near and name not in COLUMNS:
            raise DataError(f"{path}: unknown column {name!r} (did you mean {near[0]!r}?)")
        if columns.count(name) > 1 and name in COLUMNS:
            raise DataError(f"{path} has two columns {name!r}")
    if "image" not in columns:
        raise DataError(f"{path} has no column `image`: expected {', '.join(COLUMNS)}, of which only image is needed")
    for number, row in enumerate(rows, start=1):
        if not row["image"]:
            raise DataError(f"{path}: row {number} names no image")
    return [Row(**row) for row in rows]


def split_name(given: str, where: str) -> str | None:
    """Return a part of the split by our name; None for no text. `where` is named in the DataError for another name."""
    if not given:
        return None
    known = SPLITS.get(given.lower())
    if known is None:
        raise DataError(
            f"{where}: the split {given!r} is unknown: write train, validation (held out, for the results) or tuning "
            "(to choose a depth)"
        )
    return known
