"""Images of the report: raw attention maps (paper, figures 4 and 5), and slices with the predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrim.attention.maps import mosaic_top
from vitrim.report.formatting import fixed, plural
from vitrim.report.images import grey, mosaic_png, overlay
from vitrim.report.run import Examples, NetworkRun, Run


@dataclass(frozen=True)
class Mosaic:
    """Mosaic of the raw attention maps of one block; `top` is the upper end of the colour scale."""

    block: int
    picture: str
    top: float


@dataclass(frozen=True)
class Tile:
    """A predicted label map over a slice; `dice` is the Dice of this slice."""

    caption: str
    picture: str
    dice: str
    alt: str


@dataclass(frozen=True)
class Slice:
    """A slice: image, reference, and the predictions of each network in `groups`; `ratio` is width over height."""

    title: str
    image: str
    reference: str
    groups: tuple[tuple[str, tuple[Tile, ...]], ...]
    ratio: float


def mosaics(network: NetworkRun) -> list[Mosaic]:
    """Return the mosaics of the stored raw maps, one per block, each with a separate colour scale."""
    if network.maps is None:
        return []
    found = []
    for block, maps in zip(network.maps.blocks, network.maps.maps, strict=True):
        if block not in network.maps.shown:
            continue
        top = mosaic_top(maps)
        found.append(Mosaic(block, mosaic_png(maps, network.maps.grid, top), top))
    return found


def slices(run: Run) -> list[Slice]:
    """Return the stored slices with the reference and, for each network, the full and truncated predictions."""
    if run.examples is None:
        return []
    found = []
    names = ("best case", "median case", "worst case") if len(run.examples.cases) == 3 else ()
    for index, (case, number) in enumerate(zip(run.examples.cases, run.examples.slices, strict=True)):
        title = f"{case}, slice {number}"
        if names:
            title = f"{names[index].capitalize()}: {title}"
        image, reference = run.examples.image[index], run.examples.reference[index]
        groups = tuple((network.title, _tiles(run.examples, network, index)) for network in run.networks)
        found.append(
            Slice(
                title=title,
                image=grey(image),
                reference=overlay(reference),
                groups=tuple((name, tiles) for name, tiles in groups if tiles),
                ratio=image.shape[1] / image.shape[0],
            )
        )
    return found


def _tiles(examples: Examples, network: NetworkRun, index: int) -> tuple[Tile, ...]:
    reference = examples.reference[index]
    tiles = []
    for name, blocks in sorted(examples.predictions, key=lambda key: -key[1]):
        if name != network.name:
            continue
        prediction = examples.predictions[name, blocks][index]
        caption = plural(blocks, "block")
        dice = fixed(labels_dice(prediction, reference), 3)
        alt = f"Prediction of {network.title} with {caption}; Dice on this slice {dice}"
        tiles.append(Tile(caption, overlay(prediction, reference), dice, alt))
    return tuple(tiles)


def labels_dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return the average Dice of one slice over the classes in reference or prediction; NaN if there are none."""
    values = []
    for index in np.union1d(np.unique(prediction), np.unique(reference)):
        if index:
            a, b = prediction == index, reference == index
            values.append(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    return float(np.mean(values)) if values else float("nan")
