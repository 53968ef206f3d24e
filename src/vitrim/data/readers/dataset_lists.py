"""Cases that a dataset.json lists: `training` and `validation` (Decathlon, MONAI), or `dataset` (nnU-Net version 2)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vitrim.data.formats import stem
from vitrim.data.readers.dataset_json import NAME, inside
from vitrim.errors import DataError

LISTS = {"training": "train", "validation": "validation"}
"""Key of a list of cases to their part of the split."""


@dataclass(frozen=True)
class Listed:
    """One case of a dataset.json, whose files may be missing."""

    id: str
    images: tuple[Path, ...]
    label: Path | None
    split: str | None = None


def listed_cases(folder: Path, content: dict[str, Any]) -> list[Listed] | None:
    """Return the cases that dataset.json lists; None if it lists none.

    The list `validation` counts if its entries have labels, as MONAI writes it; then the lists are the split. Raises
    DataError if an entry names no image, or if a relative path leaves the folder.
    """
    named = content.get("dataset")
    if named:
        if not isinstance(named, dict):
            raise DataError(f"{folder / NAME}: `dataset` must map each case to its images and its label")
        return [_listed(folder, entry, "images", str(id)) for id, entry in named.items()]
    if not isinstance(content.get("training"), list) or not content["training"]:
        return None
    used = [key for key in LISTS if is_used(content, key)]
    return [
        _listed(folder, entry, "image", None, LISTS[key] if len(used) > 1 else None)
        for key in used
        for entry in content[key]
    ]


def is_used(content: dict[str, Any], key: str) -> bool:
    """Whether the value of a key of dataset.json gives cases: `training`, or `validation` with labels."""
    entries = content.get(key)
    if key not in LISTS or not isinstance(entries, list) or content.get("dataset"):
        return False
    if key == "training":
        return True
    return any(isinstance(entry, dict) and isinstance(entry.get("label"), str) for entry in entries)


def case_id(path: Path, folder: Path) -> str:
    """Return the case id of an image: its path in `folder` without the ending, with _ between folders.

    An image elsewhere has its own name alone.
    """
    parts = path.relative_to(folder).parent.parts if path.is_relative_to(folder) else ()
    return "_".join((*parts, stem(path)))


def _listed(folder: Path, entry: Any, key: str, id: str | None, split: str | None = None) -> Listed:
    images = entry.get(key) if isinstance(entry, dict) else None
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images or not all(isinstance(one, str) for one in images):
        raise DataError(f"{folder / NAME}: a listed case has no image: {entry!r}")
    files = tuple(_place(folder, one) for one in images)
    label = _place(folder, entry["label"]) if isinstance(entry.get("label"), str) else None
    below = folder / "imagesTr"
    return Listed(id or case_id(files[0], below if below in files[0].parents else folder), files, label, split)


def _place(folder: Path, name: str) -> Path:
    """Return the path that dataset.json names. A relative one must stay in the folder; an absolute one is as it is."""
    absolute = PurePosixPath(name).is_absolute() or Path(name).is_absolute()
    if not absolute:
        return inside(folder, name)
    path = Path(os.path.normpath(name))
    return folder / path.relative_to(folder.absolute()) if path.is_relative_to(folder.absolute()) else path
