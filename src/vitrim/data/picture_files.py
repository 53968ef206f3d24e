"""Reads one picture (PNG, JPEG, TIFF, BMP) with Pillow: an image, or a mask whose values or colours are classes.

What Pillow would change without a word is refused here: transparency, colours for print, a rotation in the metadata,
all pages but the first, and the lower half of 16-bit colours, which SimpleITK reads (`vitrim[formats]`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrim.data.cases import CaseSet, Colour
from vitrim.data.file_checks import check_file, check_memory, unreadable
from vitrim.data.itk_files import itk_reason, simpleitk
from vitrim.errors import DataError, InputError

# Pillow warns of large pictures and of what it skipped in a header; what matters of that is checked here.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

EXPECTED = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"

DECODERS = ("PNG", "JPEG", "TIFF", "BMP")
"""Pillow's names of the formats. A file is read by its content, whatever its name says."""

GREY = ("1", "L", "LA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX")
"""Pillow's modes of grey and of colour pictures; all others are refused."""

UPRIGHT, ORIENTATION = 1, 0x0112
"""The EXIF tag of a rotation, and its value for none."""

APART, BETWEEN = 64, 0.05
"""A JPEG mask: least distance between two values that can be told apart, and largest share of pixels in between."""


LOSSY_GREY = 16
"""Largest difference between the colours of a pixel that JPEG may make of grey."""


def is_picture(path: Path) -> bool:
    """Whether a name ends as that of a picture does, in small or capital letters."""
    return path.name.lower().endswith(ENDINGS)


def channels_of(path: Path) -> int:
    """Return 1 for a grey picture and 3 for one in colour. No pixels are read. Raises DataError as `read_picture`."""
    with _opened(path) as picture:
        return 1 if picture.mode in GREY else 3


def is_lossy(path: Path) -> bool:
    """Whether a picture is compressed as JPEG is, whatever its name says. Raises DataError as `read_picture`."""
    with _opened(path) as picture:
        return _is_lossy(picture)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as (H, W) or, if it is in colour, (H, W, 3), with the numbers of the file.

    Black and white become 0 and 255; a palette becomes its colours. Raises DataError if the file cannot be read, holds
    several pages, is transparent, is for print (CMYK), or is to be shown rotated. Raises InputError if it holds 16-bit
    colours and SimpleITK is missing.
    """
    with _opened(path) as picture:
        deep = _is_deep_colour(picture)
        _check_upright(picture, path)
        if deep:
            return _deep_colour(path)
        return _opaque(picture.convert("L") if picture.mode == "1" else picture, path)


def with_channels(array: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """Return a picture (H, W) or (H, W, 3) as (H, W, channels): grey is repeated, equal colours become grey.

    Raises DataError if `channels` is neither 1 nor 3, or if colours would be lost.
    """
    if channels not in (1, 3):
        raise DataError(f"{path} is a picture, which has 1 or 3 channels; {channels} are expected")
    if array.ndim == 2:
        return np.repeat(array[..., None], channels, axis=2)
    if channels == 3:
        return array
    if (array != array[..., :1]).any():
        raise DataError(f"{path} is in colour, but grey pictures are expected: convert it")
    return array[..., :1]


def read_mask(path: Path, case_set: CaseSet) -> np.ndarray:
    """Read a mask (H, W): class numbers if the classes of `case_set` have colours, else the values of the file.

    The values of a picture with a palette are its indices. White in a black and white picture is the value 1, or 255
    if 1 has no class. Raises DataError as `read_picture` does, and if a colour has no class, if a mask of values is in
    colour, or if it is a JPEG, unless it has two values far apart.
    """
    with _opened(path) as picture:
        lossy = _is_lossy(picture)
        deep = _is_deep_colour(picture)
        _check_upright(picture, path)
        if deep:
            raise DataError(f"{path} holds colours of 16 bits: save the mask with 8 bits")
        if case_set.colours:
            if lossy:
                raise DataError(f"{path} is a JPEG, which changes colours: a mask must be PNG, TIFF or BMP")
            return _by_colour(_opaque(picture.convert("L") if picture.mode == "1" else picture, path), case_set, path)
        if picture.mode == "P":
            return np.array(picture)
        if picture.mode == "1":
            white = 1 if 1 in case_set.label_values else 255
            return np.array(picture).astype(np.uint8) * np.uint8(white)
        array = _opaque(picture, path)
    if array.ndim == 3:
        spread = int((array.max(axis=2) - array.min(axis=2)).max())
        if spread > (LOSSY_GREY if lossy else 0):
            raise DataError(
                f"{path} is in colour, but the classes have values: give the colour of each class in `labels` of "
                'dataset.json, for example "vessel": "#ff0000"'
            )
        array = array[..., 0]
    return _nearest(array, case_set, path) if lossy else array


def colour_text(colour: Colour) -> str:
    """Return a colour as text, for example #ff0000."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a picture and check its header; errors of Pillow, also while it reads the pixels, become DataErrors."""
    check_file(path)
    try:
        with Image.open(path, formats=DECODERS) as picture:
            _check(picture, path)
            yield picture
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(f"cannot read {path}: it is damaged, or no picture that Pillow reads") from error
    except Exception as error:  # Pillow raises many kinds
        raise unreadable(path, error) from error


def _check(picture: Any, path: Path) -> None:
    pages = getattr(picture, "n_frames", 1)
    if pages > 1:
        raise DataError(f"{path} holds {pages} pages: save each as a picture of its own")
    if picture.mode not in (*GREY, *COLOUR):
        raise DataError(f"{path} has colours of the kind {picture.mode}: convert it to RGB")
    check_memory(float(picture.width) * picture.height * 4, path)


def _check_upright(picture: Any, path: Path) -> None:
    """Raise DataError if the metadata say that a picture is to be turned. Of a PNG, this reads all pixels."""
    turned = picture.getexif().get(ORIENTATION, UPRIGHT)
    if turned not in (0, UPRIGHT):
        raise DataError(
            f"{path} is to be shown rotated or mirrored (EXIF orientation {turned}), which some programs do and others "
            "do not: save it upright, for example with Pillow's ImageOps.exif_transpose"
        )


def _is_lossy(picture: Any) -> bool:
    return picture.format in ("JPEG", "MPO") or picture.info.get("compression") in ("jpeg", "tiff_jpeg")


def _is_deep_colour(picture: Any) -> bool:
    """Whether a picture, not yet read, holds several channels of 16 bits, of which Pillow keeps 8."""
    if picture.mode in ("1", "L", "P") or picture.mode.startswith(("I", "F")):
        return False
    layouts = [tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in picture.tile if tile[3]]
    return any(";16" in str(layout) for layout in layouts)


def _deep_colour(path: Path) -> np.ndarray:
    """Read a picture with 16-bit colours, uint16 (H, W, 3)."""
    sitk = simpleitk(f"reading the 16-bit colours of {path}")
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise unreadable(path, itk_reason(error)) from error
    if array.dtype != np.uint16 or array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"{path} holds {array.shape[-1]} channels of {array.dtype}: expected red, green and blue")
    return array


def _opaque(picture: Any, path: Path) -> np.ndarray:
    """Return the pixels without transparency, a palette as its colours. Raises DataError if a pixel is transparent."""
    if picture.mode in ("LA", "PA", "RGBA") or ("transparency" in picture.info and picture.mode in ("L", "P", "RGB")):
        layers = np.array(picture.convert("LA" if picture.mode in ("L", "LA") else "RGBA"))
        if (layers[..., -1] != 255).any():
            raise DataError(f"{path} has transparent pixels, whose colour is not defined: save it without transparency")
        colours = layers[..., :-1]
        return np.ascontiguousarray(colours[..., 0] if colours.shape[2] == 1 else colours)
    array = np.array(picture.convert("RGB") if picture.mode in COLOUR else picture)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _by_colour(array: np.ndarray, case_set: CaseSet, path: Path) -> np.ndarray:
    """Return the class numbers (H, W), uint8, of the colours of a mask (H, W) or (H, W, 3)."""
    if array.dtype != np.uint8:
        raise DataError(f"{path} holds {array.dtype}, but the classes have colours: expected a picture in colour")
    parts = with_channels(array, 3, path).astype(np.int32)
    found, places = np.unique(_number(parts[..., 0], parts[..., 1], parts[..., 2]), return_inverse=True)
    known = {_number(*colour): index for colour, index in case_set.colours.items()}
    for number in found.tolist():
        if number not in known:
            names = ", ".join(f"{colour_text(c)} {case_set.classes[n]}" for c, n in case_set.colours.items())
            raise DataError(f"the colour #{number:06x} in {path} has no class: known colours are {names}")
    return np.array([known[number] for number in found.tolist()], np.uint8)[places].reshape(array.shape[:2])


def _number(red: Any, green: Any, blue: Any) -> Any:
    return (red << 16) | (green << 8) | blue


def _nearest(array: np.ndarray, case_set: CaseSet, path: Path) -> np.ndarray:
    """Return the nearer of the two values of a JPEG mask (H, W) for each pixel."""
    zero = min(value for value, index in case_set.label_values.items() if index == 0)
    others = [value for value, index in case_set.label_values.items() if index]
    one = max(others, key=lambda value: abs(value - zero))
    if case_set.num_classes > 2 or abs(one - zero) < APART:
        raise DataError(
            f"{path} is a JPEG, which changes values: masks of more than two values, or of values that lie near each "
            "other, must be PNG, TIFF or BMP"
        )
    off = np.minimum(np.abs(array.astype(np.int32) - zero), np.abs(array.astype(np.int32) - one))
    if float((off > APART).mean()) > BETWEEN:
        raise DataError(f"{path} is a JPEG with more values than {zero} and {one}: save the mask as PNG")
    return np.where(np.abs(array.astype(np.int32) - zero) <= np.abs(array.astype(np.int32) - one), zero, one)
