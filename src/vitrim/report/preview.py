"""One picture of a prediction, to be looked at before it is trusted."""

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
from vitrim.report.images import class_colour, edges, window

SLICES = 6
COLUMNS = 3
FILL = 0.35
"""How much of a structure's colour lies over the image inside its outline."""


def write_preview(
    path: Path, loaded: Loaded, labels: np.ndarray, prepared: PreparedCase, classes: dict[int, str]
) -> None:
    """Draw six slices of a case as the network saw them turned, each structure of `labels` (X, Y, Z) in its colour.

    The slices are evenly spaced over those in which something was found, or over all. Pixels have the voxels' shape.
    """
    images = shown(loaded.volume.image[0], prepared.record)  # (S, rows, columns)
    for step in prepared.record["steps"]:
        if step["step"] == "clip":  # the window in which the network sees a CT shows its organs
            images = images.clip(step["low"], step["high"])
    found = shown(labels, prepared.record)
    down, across = shown_spacing(prepared.record) or (1.0, 1.0)
    places = _places(found)
    rows = -(-len(places) // COLUMNS)
    height = images.shape[1] * down / (images.shape[2] * across)
    figure = Figure(figsize=(9, rows * (3 * height + 0.25) + 0.7), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for panel, place in enumerate(places, start=1):
        axes = figure.add_subplot(rows, COLUMNS, panel)
        axes.imshow(_coloured(images[place], found[place]), aspect=down / across, interpolation="nearest")
        axes.set_title(f"slice {place + 1} of {len(images)}", fontsize=9)
        axes.set_axis_off()
    there = np.unique(found).tolist()
    legend = [Patch(color=class_colour(label), label=classes[label]) for label in there if label]
    title = path.name.removesuffix("_preview.png")
    figure.suptitle(title if legend else f"{title}: no structure found", fontsize=11)
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), 5), frameon=False, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _places(found: np.ndarray) -> list[int]:
    """Numbers of the slices to show."""
    inside = np.flatnonzero(found.any(axis=(1, 2)))
    choice = inside if len(inside) else np.arange(len(found))
    return np.unique(choice[np.linspace(0, len(choice) - 1, SLICES).round().astype(int)]).tolist()


def _coloured(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A slice in grey with its structures in colour, (rows, columns, 3) from 0 to 1."""
    grey = np.repeat(window(image)[..., None] / 255, 3, axis=2)
    outline = edges(labels)
    for label in np.unique(labels[labels > 0]).tolist():
        colour, inside = np.array(to_rgb(class_colour(label))), labels == label
        grey[inside] = (1 - FILL) * grey[inside] + FILL * colour
        grey[inside & outline] = colour
    return grey
