"""Arrays as pictures inside the page: slices, label maps, and the mosaics of the paper's figures 4 and 5."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from vitrim.attention.maps import mosaic

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#44AA99", "#882255", "#999933")
"""Colours of the classes: Okabe and Ito's, which the colour-blind can tell apart, then three of Paul Tol's.

White is kept for the reference's outline.
"""

COLORMAP = "viridis"
"""Of the attention: even in lightness, also for the colour-blind and in grey."""


STEPS = 64
"""Colours of a mosaic: as many as the eye tells apart, and a small picture."""


def class_colour(index: int) -> str:
    """Colour of the class with label `index` (from 1)."""
    return PALETTE[(index - 1) % len(PALETTE)]


def png(indices: np.ndarray, palette: np.ndarray | None = None) -> str:
    """A picture as an address inside the page: grey values (H, W) uint8, or places in a palette (n, 3 or 4) of them."""
    picture = Image.fromarray(indices)
    transparent = None
    if palette is not None:
        picture = Image.fromarray(indices, "L")
        picture.putpalette(palette[:, :3].tobytes())
        transparent = palette[:, 3].tobytes() if palette.shape[1] == 4 else None
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, **({} if transparent is None else {"transparency": transparent}))
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def window(image: np.ndarray) -> np.ndarray:
    """Grey values of a slice (H, W): its 0.5th to 99.5th percentile as 0 to 255."""
    low, high = np.percentile(image, [0.5, 99.5])
    return (np.clip((image - low) / max(float(high - low), 1e-12), 0, 1) * 255).round().astype(np.uint8)


def grey(image: np.ndarray) -> str:
    """A slice (H, W) of any intensities."""
    return png(window(image))


def edges(label: np.ndarray) -> np.ndarray:
    """Pixels of a label map (H, W) that touch another label, on the label's own side."""
    edge = np.zeros(label.shape, bool)
    differs = label[1:] != label[:-1]
    edge[1:] |= differs
    edge[:-1] |= differs
    differs = label[:, 1:] != label[:, :-1]
    edge[:, 1:] |= differs
    edge[:, :-1] |= differs
    return edge & (label > 0)


def overlay(label: np.ndarray, outline: np.ndarray | None = None) -> str:
    """Label map (H, W) in the classes' colours, see-through inside; `outline`, another label map, as a white edge."""
    label = np.repeat(np.repeat(label, 2, axis=0), 2, axis=1).astype(np.int64)
    count = len(PALETTE)
    palette = np.zeros((2 * count + 2, 4), np.uint8)  # nothing; inside, and edge, of each colour; white
    palette[1:-1, :3] = [_rgb(colour) for colour in PALETTE] * 2
    palette[1 : count + 1, 3], palette[count + 1 :, 3] = 140, 255
    palette[-1] = 255
    colour = np.where(label > 0, (label - 1) % count + 1, 0)
    places = np.where(edges(label), colour + count, colour).astype(np.uint8)
    if outline is not None:
        places[edges(np.repeat(np.repeat(outline, 2, axis=0), 2, axis=1))] = len(palette) - 1
    return png(places, palette)


def ramp() -> np.ndarray:
    """The colours of attention from least to most, (256, 3) uint8."""
    return (colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def mosaic_png(maps: np.ndarray, grid: tuple[int, int], top: float) -> str:
    """The mosaic of one block's maps (N, N) (`vitrim.attention.maps.mosaic`); 0 to `top` is the colour scale."""
    laid_out = mosaic(maps, grid)
    levels = np.rint(np.clip(np.nan_to_num(laid_out) / top, 0, 1) * (STEPS - 1)).astype(np.uint8)
    canvas = np.where(np.isnan(laid_out), np.uint8(STEPS), levels)
    palette = np.zeros((STEPS + 1, 4), np.uint8)
    palette[:STEPS, :3] = ramp()[np.linspace(0, 255, STEPS).round().astype(int)]
    palette[:STEPS, 3] = 255
    return png(np.ascontiguousarray(canvas), palette)


def colour_bar() -> str:
    """The colour scale, lowest on the left."""
    return png(np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0), ramp())


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
