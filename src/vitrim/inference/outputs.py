"""Writes label maps and probabilities as NIfTI, on the grid of their image.

Each file stores its provenance in a comment (a NIfTI header extension): which network made it from which image. So an
interrupted prediction can resume, and files from other sources are not mistaken for results.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from PIL import Image

from vitrim.config.names import VoxelSize
from vitrim.data.geometry import geometry
from vitrim.files import replacing

MADE_BY = "vitrim"
"""Software in the metadata of a preview; so vitrim knows its own."""

COMMENT = 6
"""NIfTI's code for an extension of plain text."""

Origin = dict[str, str]
"""Provenance of a prediction: vitrim's version, precision, and digests of network, image and preparation."""


def write_labels(path: Path, labels: np.ndarray, image: Any, origin: Origin) -> None:
    """Write labels (X, Y, Z), uint8, with the grid, affine, orientation codes, units and description of `image`."""
    shape = image.shape if np.prod(image.shape) == labels.size else labels.shape
    result = _like(image, labels.reshape(shape), origin)
    result.header.set_intent("label")
    with _writing(path) as stream:
        result.to_stream(stream)


def write_probabilities(path: Path, classes: Iterable[np.ndarray], count: int, image: Any, origin: Origin) -> None:
    """Write probabilities as float32 (X, Y, Z, K). `classes` yields K maps (X, Y, Z); one is in memory at a time."""
    result = _like(image, np.broadcast_to(np.float32(0), (*_space(image), count)), origin)
    header = result.header
    header.set_slope_inter(1, 0)
    with _writing(path) as stream:
        header.write_to(stream)
        stream.write(b"\0" * (header.get_data_offset() - stream.tell()))
        for values in classes:
            stream.write(np.asarray(values, header.get_data_dtype()).tobytes(order="F"))


def read_origin(path: Path) -> Origin | None:
    """Return the provenance stored in the file at `path`; None if there is none or the file is unreadable."""
    try:
        extensions = nib.load(path).header.extensions
        for extension in extensions:
            if extension.get_code() == COMMENT:
                content = json.loads(extension.get_content())
                if isinstance(content, dict) and "vitrim" in content:
                    return content["vitrim"]
    except Exception:  # not a file that vitrim wrote
        return None
    return None


def are_probabilities(path: Path) -> bool:
    """Whether `write_probabilities` wrote this file. A label map with such a file name does not count."""
    return read_origin(path) is not None and nib.load(path).header.get_intent()[0] != "label"


def is_our_preview(path: Path) -> bool:
    """Whether vitrim drew this picture: its metadata say so."""
    try:
        with Image.open(path) as picture:
            return picture.format == "PNG" and picture.info.get("Software") == MADE_BY
    except Exception:  # no picture
        return False


def millilitres(image: Any, voxel_size: VoxelSize | None = None) -> float | None:
    """Return the volume of a voxel in ml; None if the header has no spacing."""
    header = image.header
    unit = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else "unknown"
    known = unit != "unknown" or header.get("sform_code", 0) > 0 or header.get("qform_code", 0) > 0
    if not known and np.allclose(header.get_zooms()[:3], 1):
        return None
    return abs(float(np.linalg.det(geometry(image, voxel_size).affine[:3, :3]))) / 1000


def _like(image: Any, array: np.ndarray, origin: Origin) -> Any:
    """Return a NIfTI image of `array` with the header of `image`, without the fields that no longer apply."""
    kind = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
    header = image.header.copy() if isinstance(image, nib.Nifti1Pair) else None
    result = kind(array, image.affine, header, dtype=array.dtype)
    result.header["cal_min"] = result.header["cal_max"] = 0
    result.header.set_intent("none")
    result.header.extensions.clear()
    result.header.extensions.append(Nifti1Extension(COMMENT, json.dumps({"vitrim": origin}).encode()))
    result.header["vox_offset"] = 0  # nibabel computes it again, after the extension
    return result


def _space(image: Any) -> tuple[int, int, int]:
    x, y, z = (*image.shape[:3], 1, 1)[:3]
    return x, y, z


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a stream, compressed if the name ends in .gz. Its content appears at `path` once it is complete."""
    with replacing(path) as temporary, temporary.open("wb") as raw:
        if path.name.endswith(".gz"):
            # without name and time, the same prediction gives the same bytes
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as zipped:
                yield zipped  # type: ignore[misc]
        else:
            yield raw
