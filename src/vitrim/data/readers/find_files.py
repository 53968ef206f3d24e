"""Find files in a data folder, including subfolders and linked folders. Hidden files and folders are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

DEPTH = 5
"""Number of folder levels below the given folder that are searched."""


def files(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield all files in `folder` and below, in order. Links are followed, but no folder is read twice."""
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


def some(names: Sequence[str], most: int = 5) -> str:
    """Name the first few of many: "a, b, c and 7 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
