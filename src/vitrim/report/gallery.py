"""Images of the report: raw attention maps (paper, figures 4 and 5), and slices with outlines and errors."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from vitrim.attention.colour_scale import scale_top
from vitrim.compression.depth_procedure import shown_depth
from vitrim.metrics.statistics import case_dice
from vitrim.report.formatting import fixed, plural
from vitrim.report.images import error_map, grey, mosaic_png, outlines, overlay
from vitrim.report.run import NetworkRun, Run


@dataclass(frozen=True)
class Mosaic:
    """Mosaic of the raw attention maps of one block."""

    block: int
    picture: str


@dataclass(frozen=True)
class Tile:
    """A picture over a slice, with its caption and text for screen readers."""

    caption: str
    picture: str
    alt: str


@dataclass(frozen=True)
class Slice:
    """A slice with its tiles; `ratio` is width over height."""

    title: str
    image: str
    tiles: tuple[Tile, ...]
    ratio: float


@dataclass(frozen=True)
class Gallery:
    """The slices of one network, those of better cases first."""

    title: str
    slices: tuple[Slice, ...]


def mosaics(network: NetworkRun) -> list[Mosaic]:
    """Return the mosaics of the stored raw maps, one per block, all on one colour scale."""
    if network.maps is None:
        return []
    found = []
    for block, maps in zip(network.maps.blocks, network.maps.maps, strict=True):
        if block not in network.maps.shown:
            continue
        found.append(Mosaic(block, mosaic_png(maps, network.maps.grid, scale_top(len(maps)))))
    return found


def galleries(run: Run) -> list[Gallery]:
    """Return the stored slices of each network: reference, outlines, and the errors of full and truncated network.

    The slices of a network are ordered by the Dice of their case with all its blocks.
    """
    found = [Gallery(network.title, _slices(run, network)) for network in run.networks]
    return [gallery for gallery in found if gallery.slices]


def _slices(run: Run, network: NetworkRun) -> tuple[Slice, ...]:
    examples = run.examples
    if examples is None:
        return ()
    full = run.full_blocks(network.name)
    depths = [blocks for name, blocks in examples.predictions if name == network.name]
    decided = network.decision.depth if network.decision is not None else None
    smaller = shown_depth(decided, [blocks for blocks in depths if blocks < full])
    shown = [blocks for blocks in (full, smaller) if blocks in depths]
    dice = {blocks: _case_dice(run, network.name, blocks) for blocks in shown}
    order = list(dice.get(full, {}))
    chosen = [
        index
        for index in range(len(examples.cases))
        if examples.networks is None or examples.networks[index] == network.name
    ]
    chosen.sort(key=lambda index: order.index(case) if (case := examples.cases[index]) in order else len(order))
    found = []
    for index in chosen if shown else []:
        case, image, reference = examples.cases[index], examples.image[index], examples.reference[index]
        predictions = {blocks: examples.predictions[network.name, blocks][index] for blocks in shown}
        title = f"{case}, slice {examples.slices[index]}"
        if case in order:
            title = f"{_rank(order.index(case), len(order))}: {title}"
        names = " and ".join(plural(blocks, "block") for blocks in shown)
        tiles = [
            Tile("Reference", overlay(reference), f"Reference of {case}"),
            Tile("Outlines", outlines([*predictions.values(), reference]), f"Outlines of the reference and of {names}"),
        ]
        for blocks, prediction in predictions.items():
            caption = f"Errors with {plural(blocks, 'block')}"
            if case in dice[blocks]:
                caption += f"; Dice of the case {fixed(dice[blocks][case], 3)}"
            tiles.append(Tile(caption, error_map(prediction, reference), f"{caption}, {network.title}"))
        found.append(Slice(title, grey(image), tuple(tiles), image.shape[1] / image.shape[0]))
    return tuple(found)


def _case_dice(run: Run, network: str, blocks: int) -> dict[str, float]:
    """Return the Dice of each case for the first seed and fold, the best case first; empty without a table."""
    if run.cases is None:
        return {}
    rows = run.cases[(run.cases["network"] == network) & (run.cases["blocks"] == blocks)]
    for key in ("seed", "fold"):
        if key in rows and len(rows):
            rows = rows[rows[key] == rows[key].iloc[0]]
    series: pd.Series = case_dice(rows)
    return {str(case): float(value) for case, value in series.items()}


@dataclass(frozen=True)
class Changes:
    """A training slice and what augmentation made of it: an image and its labels each; `ratio` is width over height."""

    title: str
    ratio: float
    pictures: tuple[tuple[str, str, str], ...]
    """Caption, image and labels of the slice as it is, then of each epoch"""


def changes(run: Run) -> list[Changes]:
    """Return the stored training slices before and after augmentation."""
    stored, found = run.augmented, []
    if stored is None:
        return []
    for index, (case, number) in enumerate(zip(stored.cases, stored.slices, strict=True)):
        pairs = zip(stored.changed_image[index], stored.changed_label[index], strict=True)
        plain = stored.image[index]
        pictures = [("as it is", grey(plain), overlay(stored.label[index]))]
        pictures += [(f"epoch {n}", grey(image, plain), overlay(label)) for n, (image, label) in enumerate(pairs, 1)]
        height, width = plain.shape
        found.append(Changes(f"{case}, slice {number}", width / height, tuple(pictures)))
    return found


def _rank(place: int, total: int) -> str:
    """Say where a case stands by Dice: "Best of 10 cases", "Case 6 of 10 by Dice", "Worst of 10 cases"."""
    if place in (0, total - 1) and total > 1:
        return f"{'Worst' if place else 'Best'} of {total} cases"
    return f"Case {place + 1} of {total} by Dice"
