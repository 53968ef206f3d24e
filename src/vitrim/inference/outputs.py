"""Writes label maps and probabilities on the grid of their image. Probabilities are always NIfTI.

Each file stores its provenance: which network made it from which image. So an interrupted prediction can resume, and
files from other sources are not mistaken for results. In NIfTI it is a comment (a header extension), in NRRD and
MetaImage the field `vitrim` of the header, in PNG the text `vitrim`, in DICOM SEG a parameter of the algorithm.
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
from PIL.PngImagePlugin import PngInfo

from vitrim.config.names import VoxelSize
from vitrim.data.formats import data_file, format_of, read_voxels
from vitrim.data.geometry import geometry
from vitrim.data.itk_files import header_image, write_itk
from vitrim.data.picture_files import is_picture
from vitrim.data.text_headers import read_text_header
from vitrim.files import replacing, unfinished
from vitrim.inference.dicom_seg import read_seg_origin

MADE_BY = "vitrim"
"""Software in the metadata of a preview; so vitrim knows its own."""

KEY = "vitrim"
"""Name of the provenance in the headers of NRRD and MetaImage files, and in the texts of PNG files."""

SEG = ".dcm"
"""Ending of a DICOM SEG."""

COMMENT = 6
"""NIfTI's code for an extension of plain text."""

Origin = dict[str, str]
"""Provenance of a prediction: vitrim's version, precision, and digests of network, image and preparation."""


def write_labels(path: Path, labels: np.ndarray, image: Any, affine: np.ndarray, origin: Origin) -> None:
    """Write labels (X, Y, Z), uint8, in the format that the ending of `path` says.

    NIfTI keeps the grid, affine, orientation codes, units and description of `image`. NRRD and MetaImage get `affine`,
    voxel to mm in RAS+. PNG holds the labels as grey values. Raises OSError if a file cannot be written.
    """
    if is_picture(path):
        notes = PngInfo()
        notes.add_text(KEY, json.dumps({"vitrim": origin}))
        with replacing(path) as temporary:
            Image.fromarray(np.ascontiguousarray(labels[:, :, 0].T)).save(temporary, "PNG", pnginfo=notes)
        return
    if is_itk(path):
        with _placing(path) as temporary:
            write_itk(temporary, labels, affine, {KEY: json.dumps({"vitrim": origin})})
        return
    shape = image.shape if np.prod(image.shape) == labels.size else labels.shape
    result = _like(image, labels.reshape(shape), origin, pair=data_file(path) is not None)
    result.header.set_intent("label")
    if data_file(path) is not None:
        with _placing(path) as temporary:
            result.to_filename(temporary)
        return
    with _writing(path) as stream:
        result.to_stream(stream)


def is_itk(path: Path) -> bool:
    """Whether SimpleITK writes a label map of this name."""
    kind = format_of(path)
    return kind is not None and kind.library == "SimpleITK"


def open_labels(path: Path) -> tuple[np.ndarray, Any]:
    """Return the labels (X, Y, Z) in a file that `write_labels` wrote, and an image with its header."""
    if not is_itk(path) and not is_picture(path):
        image: Any = nib.load(path)
        return np.asanyarray(image.dataobj), image
    voxels = read_voxels(path)
    return voxels.array, header_image(voxels.array.shape, voxels.affine, voxels.oriented)


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
        if path.suffix == SEG:
            return read_seg_origin(path)
        if is_picture(path):
            with Image.open(path, formats=["PNG"]) as picture:
                return json.loads(picture.info[KEY])["vitrim"]
        if is_itk(path):
            origin = json.loads(read_text_header(path).fields[KEY])["vitrim"]
            return origin if isinstance(origin, dict) else None
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


def _like(image: Any, array: np.ndarray, origin: Origin, pair: bool = False) -> Any:
    """Return a NIfTI image of `array` with the header of `image`, without the fields that no longer apply.

    `pair`: for a header and a file of voxels beside it.
    """
    if isinstance(image, nib.Nifti2Pair):
        kind = nib.Nifti2Pair if pair else nib.Nifti2Image
    else:
        kind = nib.Nifti1Pair if pair else nib.Nifti1Image
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
def _placing(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a temporary folder. What is written there gets its place once it is complete.

    A header is put in its place last, after its file of voxels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as folder:
        folder.mkdir()
        yield folder / path.name
        data = data_file(path)
        if data is not None:
            path.unlink(missing_ok=True)  # it would describe other voxels
            (folder / data.name).replace(data)
        (folder / path.name).replace(path)


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
