"""A preview image of a prediction, for a visual check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vitrim.data.preprocessing import PreparedCase, shown, shown_spacing
from vitrim.files import replacing
from vitrim.inference.inputs import Loaded
from vitrim.inference.outputs import MADE_BY
from vitrim.report.images import class_colour, edges, window

SLICES = 6
COLUMNS = 3
FILL = 0.35
"""Opacity of the colour of a structure inside its outline."""


def write_preview(
    path: Path, loaded: Loaded, labels: np.ndarray, prepared: PreparedCase, classes: dict[int, str]
) -> None:
    """Draw six slices of a case to the PNG `path`, in the orientation of the network input.

    labels: (X, Y, Z); each structure has its colour. The six slices are evenly spaced over the slices that contain a
    structure, or over all slices if none was found. The pixels have the aspect ratio of the voxels. A picture keeps its
    colours.
    """
    channels = loaded.volume.image if loaded.colour else loaded.volume.image[:1]
    images = np.stack([shown(one, prepared.record) for one in channels], -1)  # (S, rows, columns, 1 or 3)
    for step in prepared.record["steps"]:
        if step["step"] == "clip":  # the organs of a CT are visible in the intensity window of the network
            images = images.clip(step["low"], step["high"])
    found = shown(labels, prepared.record)
    down, across = shown_spacing(prepared.record) or (1.0, 1.0)
    places = _places(found)
    columns, width = (1, 6) if len(images) == 1 else (COLUMNS, 3)  # a picture is drawn larger
    rows = -(-len(places) // columns)
    height = images.shape[1] * down / (images.shape[2] * across)
    size = (columns * width, rows * (width * height + 0.25) + 0.7)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for panel, place in enumerate(places, start=1):
        axes = figure.add_subplot(rows, columns, panel)
        axes.imshow(_coloured(images[place], found[place]), aspect=down / across, interpolation="nearest")
        if len(images) > 1:
            axes.set_title(f"slice {place + 1} of {len(images)}", fontsize=9)
        axes.set_axis_off()
    there = np.unique(found).tolist()
    legend = [Patch(color=class_colour(label), label=classes[label]) for label in there if label]
    title = path.name.removesuffix("_preview.png")
    figure.suptitle(title if legend else f"{title}: no structure found", fontsize=11)
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), 5), frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": MADE_BY})


def _places(found: np.ndarray) -> list[int]:
    """Return the indices of the slices to show."""
    inside = np.flatnonzero(found.any(axis=(1, 2)))
    choice = inside if len(inside) else np.arange(len(found))
    return np.unique(choice[np.linspace(0, len(choice) - 1, SLICES).round().astype(int)]).tolist()


def _coloured(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a slice (rows, columns, 1 or 3) with its structures in colour, (rows, columns, 3), from 0 to 1."""
    grey = np.repeat(window(image) / 255, 3 // image.shape[2], axis=2)
    outline = edges(labels)
    for label in np.unique(labels[labels > 0]).tolist():
        colour, inside = np.array(to_rgb(class_colour(label))), labels == label
        grey[inside] = (1 - FILL) * grey[inside] + FILL * colour
        grey[inside & outline] = colour
    return grey
