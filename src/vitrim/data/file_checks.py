"""What is checked of a file before and while it is read, whatever its format."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from vitrim.errors import DataError

DEFLATE_LIMIT = 1032
"""Largest compression factor of deflate. A header that declares more voxels than this allows is damaged."""

PADDING = 512
"""Largest number of bytes after the last voxel. They must be zero: some programs fill a file up."""


def unreadable(path: Path, error: BaseException) -> DataError:
    """Return a DataError that says in one line that a file cannot be read, and why."""
    return DataError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}")


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as text, for example 12×10×6."""
    return "×".join(str(n) for n in shape)


def check_end(stream: IO[bytes] | gzip.GzipFile, stored: Path) -> None:
    """Read `stream` to its end. Raises DataError if more than a little padding with zeros is left."""
    rest, length, padding = stream.read(1 << 20), 0, True
    while rest:
        length, padding = length + len(rest), padding and not any(rest[:PADDING])
        rest = stream.read(1 << 20)
    if length > PADDING or not padding:
        raise DataError(f"{stored} is damaged: it holds {length} bytes more than its header declares")


def check_promise(shape: Sequence[int], itemsize: int, stored: Path, zipped: bool) -> None:
    """Raise DataError if a header declares more voxels than the file can hold, before memory is allocated."""
    voxels = math.prod(float(n) for n in shape)
    room = stored.stat().st_size * (DEFLATE_LIMIT if zipped else 1)
    if voxels * itemsize > room:
        raise DataError(f"{stored} is damaged: its header declares {voxels:.3g} voxels, more than the file can hold")
    check_memory(voxels * itemsize, stored)


def check_file(path: Path) -> None:
    """Raise DataError unless there is a regular file: reading from a pipe would wait for ever."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file" if path.exists() else f"no such file: {path}")


def check_memory(size: float, path: Path) -> None:
    """Raise DataError if content of this many bytes does not fit into the memory of this machine."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not known on this system
        return
    if size > memory:
        raise DataError(
            f"{path} declares {size / 2**30:.3g} GiB of content; this machine has {memory / 2**30:.3g} GiB of memory"
        )
