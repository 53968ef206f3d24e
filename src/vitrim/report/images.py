"""Arrays as PNG images in the page: slices, label maps, and attention mosaics (paper, figures 4 and 5)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image

from vitrim.attention.colour_scale import COLORMAP
from vitrim.attention.maps import mosaic

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#44AA99", "#882255", "#999933")
"""Colours of the classes, for readers with and without colour blindness: seven of Okabe and Ito, three of Paul Tol.

White is reserved for the outline of the reference.
"""

STEPS = 64
"""Colours of a mosaic: enough for the eye, and few enough for a small file."""


def class_colour(index: int) -> str:
    """Return the colour of the class with label `index` (from 1)."""
    return PALETTE[(index - 1) % len(PALETTE)]


def png(indices: np.ndarray, palette: np.ndarray | None = None) -> str:
    """Return a PNG as a data URL.

    indices: (H, W) uint8, grey values or, with `palette` (n, 3 or 4) uint8 (RGB or RGBA), indices of its colours.
    """
    picture = Image.fromarray(indices)
    transparent = None
    if palette is not None:
        picture = Image.fromarray(indices, "L")
        picture.putpalette(palette[:, :3].tobytes())
        transparent = palette[:, 3].tobytes() if palette.shape[1] == 4 else None
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, **({} if transparent is None else {"transparency": transparent}))
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def window(image: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Return a slice (H, W) or (H, W, C) as uint8: its 0.5th to 99.5th percentile, or that of `like`, is 0 to 255."""
    low, high = np.percentile(image if like is None else like, [0.5, 99.5])
    return (np.clip((image - low) / max(float(high - low), 1e-12), 0, 1) * 255).round().astype(np.uint8)


def grey(image: np.ndarray, like: np.ndarray | None = None) -> str:
    """Return a slice (H, W) of any intensities as a data URL, as bright as `like` would be shown if that is given."""
    return png(window(image, like))


def edges(label: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) of the foreground pixels that touch a pixel with another label."""
    edge = np.zeros(label.shape, bool)
    differs = label[1:] != label[:-1]
    edge[1:] |= differs
    edge[:-1] |= differs
    differs = label[:, 1:] != label[:, :-1]
    edge[:, 1:] |= differs
    edge[:, :-1] |= differs
    return edge & (label > 0)


def overlay(label: np.ndarray) -> str:
    """Return a label map (H, W) in the colours of its classes as a data URL, with semi-transparent interiors."""
    label = _enlarged(label, 2)
    count = len(PALETTE)
    palette = np.zeros((2 * count + 1, 4), np.uint8)  # background; interiors; edges
    palette[1:, :3] = [_rgb(colour) for colour in PALETTE] * 2
    palette[1 : count + 1, 3], palette[count + 1 :, 3] = 140, 255
    colour = np.where(label > 0, (label.astype(np.int64) - 1) % count + 1, 0)
    return png(np.where(edges(label), colour + count, colour).astype(np.uint8), palette)


OUTLINES = ("#00C2D1", "#FF9E1B", "#FFFFFF")
"""Colours of the outlines of full network, truncated network and reference."""
MISSED, EXTRA, WRONG_CLASS = "#56B4E9", "#E69F00", "#CC79A7"
"""Colours of errors (Okabe and Ito): a structure that is missed, one that is not there, and one of another class."""


def outlines(labels: Sequence[np.ndarray]) -> str:
    """Return the outlines of full network, truncated network and reference, each (H, W), as a data URL.

    The last of `labels` is the reference. Each later outline is thinner, so that equal ones can be seen.
    """
    colours = OUTLINES[-len(labels) :] if len(labels) != 2 else (OUTLINES[0], OUTLINES[2])
    palette = np.zeros((len(labels) + 1, 4), np.uint8)
    palette[1:] = [(*_rgb(colour), 255) for colour in colours]
    canvas = np.zeros(tuple(4 * side for side in labels[0].shape), np.uint8)
    for place, label in enumerate(labels, start=1):
        line = edges(_enlarged(label, 4))
        for _ in range(len(labels) - place):
            line = _thicker(line)
        canvas[line] = place
    return png(canvas, palette)


def error_map(prediction: np.ndarray, reference: np.ndarray) -> str:
    """Return where a prediction (H, W) is wrong as a data URL: missed, extra, or of another class."""
    palette = np.zeros((4, 4), np.uint8)
    palette[1:] = [(*_rgb(colour), 235) for colour in (MISSED, EXTRA, WRONG_CLASS)]
    wrong = prediction != reference
    kinds = np.where(prediction == 0, 1, np.where(reference == 0, 2, 3))
    return png(np.where(wrong, kinds, 0).astype(np.uint8), palette)


def _enlarged(label: np.ndarray, times: int) -> np.ndarray:
    return np.repeat(np.repeat(label, times, axis=0), times, axis=1)


def _thicker(line: np.ndarray) -> np.ndarray:
    """Return a mask with its 4-neighbours."""
    grown = line.copy()
    grown[1:] |= line[:-1]
    grown[:-1] |= line[1:]
    grown[:, 1:] |= line[:, :-1]
    grown[:, :-1] |= line[:, 1:]
    return grown


def ramp() -> np.ndarray:
    """Return the colour map of the attention from low to high, (256, 3) uint8."""
    return (colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def mosaic_png(maps: np.ndarray, grid: tuple[int, int], top: float) -> str:
    """Return the mosaic of the maps (N, N) of one block (`vitrim.attention.maps.mosaic`) as a data URL.

    The colour scale runs from 0 to `top`.
    """
    laid_out = mosaic(maps, grid)
    levels = np.rint(np.clip(np.nan_to_num(laid_out) / top, 0, 1) * (STEPS - 1)).astype(np.uint8)
    canvas = np.where(np.isnan(laid_out), np.uint8(STEPS), levels)
    palette = np.zeros((STEPS + 1, 4), np.uint8)
    palette[:STEPS, :3] = ramp()[np.linspace(0, 255, STEPS).round().astype(int)]
    palette[:STEPS, 3] = 255
    return png(np.ascontiguousarray(canvas), palette)


def colour_bar() -> str:
    """Return an image of the colour scale as a data URL, with the lowest value on the left."""
    return png(np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0), ramp())


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
