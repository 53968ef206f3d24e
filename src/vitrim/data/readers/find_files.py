"""Finding files in a data folder as people have it: unzipped one level deeper, linked, with litter in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

DEPTH = 5
"""Folders below the given one that are looked into."""

NIFTI = (".nii.gz", ".nii", ".hdr")
"""Endings of files that nibabel opens by this name; Analyze's `.img` goes with its `.hdr`."""


def files(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """All files in `folder` and below, in order; links are followed, but no folder is entered twice."""
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        try:
            status = Path(here).stat()
        except OSError:
            folders.clear()
            continue
        place = (status.st_dev, status.st_ino)
        if place in seen or len(Path(here).relative_to(folder).parts) >= depth:
            folders.clear()
        if place in seen:
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(here) / name


def stem(path: Path) -> str:
    """Name of an image file without its ending; the whole name if it is none."""
    return next((path.name[: -len(ending)] for ending in NIFTI if path.name.endswith(ending)), path.name)
