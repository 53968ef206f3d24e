"""Read a folder of ordinary pictures for a model of timm, prepared as timm does. Each picture is one case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vitrim.data.picture_files import EXPECTED, is_picture
from vitrim.errors import DataError


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in `folder`, sorted by name. Raises DataError if the folder is missing or holds none."""
    if not folder.is_dir():
        raise DataError(f"no such folder of pictures: {folder}")
    found = sorted(path for path in folder.iterdir() if is_picture(path))
    if not found:
        raise DataError(f"no pictures in {folder}: expected files that end in {EXPECTED}")
    return found


def read_picture(path: Path, size: tuple[int, int], mean: Sequence[float], deviation: Sequence[float]) -> np.ndarray:
    """Read a picture as float32 (C, H, W): resized (bicubic) to `size` (H, W), scaled to 0..1, normalised per channel.

    The picture becomes grey if `mean` has one value, and RGB otherwise. Raises DataError if the file cannot be read
    as a picture.
    """
    try:
        with Image.open(path) as picture:
            converted = picture.convert("L" if len(mean) == 1 else "RGB").resize(size[::-1], Image.Resampling.BICUBIC)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the picture {path}: {error}") from error
    array = np.asarray(converted, dtype=np.float32).reshape(*size, -1) / 255
    normalised = (array - np.asarray(mean, np.float32)) / np.asarray(deviation, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
