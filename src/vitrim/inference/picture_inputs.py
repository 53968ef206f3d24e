"""Finds the pictures to predict, for a network that was trained on pictures."""

from __future__ import annotations

from pathlib import Path

from vitrim.data.formats import stem
from vitrim.data.picture_files import EXPECTED, is_picture
from vitrim.data.readers.find_files import some
from vitrim.errors import DataError
from vitrim.inference.inputs import Input, Inputs


def find_pictures(path: Path) -> Inputs:
    """Return the cases at `path`: a picture, or a folder of them. Subfolders are not searched.

    Raises DataError if there is no picture, or if two would have the same name.
    """
    if path.is_file():
        if not is_picture(path):
            raise DataError(f"{path} is no picture ({EXPECTED}), and the network was trained on pictures")
        return Inputs([Input(stem(path), (path,))], [])
    if not path.is_dir():
        raise DataError(f"no such file or folder: {path}")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    found: dict[str, Path] = {}
    for file in filter(is_picture, files):
        other = found.setdefault(stem(file), file)
        if other != file:
            raise DataError(f"{other} and {file.name} would both be case {stem(file)}; rename one")
    if not found:
        inside = path / "images"
        where = f"; there is a folder {inside}" if inside.is_dir() else ""
        raise DataError(f"no pictures in {path}: expected {EXPECTED}{where}")
    others = [file.name for file in files if not is_picture(file)]
    unused = [f"{len(others)} file{'s' if len(others) != 1 else ''} (no picture): {some(others)}"] if others else []
    return Inputs([Input(name, (file,)) for name, file in sorted(found.items())], unused)
