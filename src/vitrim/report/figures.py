"""The figures of one network: its measures by block, its raw maps, its training; and the slices of all networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from vitrim.attention.decision import Decision
from vitrim.report.charts import Frame, Line, chart, level, nice_range, shade
from vitrim.report.measures import Curve, Measure, available, curve
from vitrim.report.numbers import fixed
from vitrim.report.pictures import grey, mosaic, mosaic_top, overlay
from vitrim.report.run import Examples, NetworkRun, Run


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and how it reads."""

    key: str
    title: str
    reads: str
    svg: Markup


@dataclass(frozen=True)
class Mosaic:
    """The raw maps of one block; `top` is the upper end of the colour scale."""

    block: int
    picture: str
    top: float


@dataclass(frozen=True)
class Tile:
    """One label map over a slice; `dice` is that slice's."""

    caption: str
    picture: str
    dice: str
    alt: str


@dataclass(frozen=True)
class Slice:
    """A slice: the image once, the reference, and per network its predictions."""

    title: str
    image: str
    reference: str
    groups: tuple[tuple[str, tuple[Tile, ...]], ...]
    ratio: float


def measure_figures(network: NetworkRun) -> list[Figure]:
    """A chart for each measure in the profile; the one that decided comes first and carries the threshold."""
    if network.profile is None:
        return []
    measures = available(network.profile)
    if network.decision is not None:
        deciding = network.decision.measure
        measures.sort(key=lambda measure: measure.key != deciding)
    return [figure for measure in measures if (figure := _measure_figure(network, measure)) is not None]


def _measure_figure(network: NetworkRun, measure: Measure) -> Figure | None:
    decision = network.decision
    trained: Curve | None
    if decision is not None and decision.measure == measure.key:
        trained, untrained = _deciding_curves(decision)
    else:
        decision = None
        trained, untrained = curve(network.profile, measure.key), curve(network.untrained, measure.key)
    if trained is None:
        return None
    lines = [Line(trained.points, "trained", "trained", trained.low, trained.high, markers=True)]
    if untrained is not None:
        lines.insert(0, Line(untrained.points, "untrained", "untrained"))
    values = [y for line in lines for _, y in line.points] + [*(trained.low or ()), *(trained.high or ())]
    last = max(trained.blocks)
    under, over = [], []
    frame = Frame(
        (0.5, last + 0.5), nice_range([*values, decision.threshold] if decision else values, measure.low, measure.high)
    )
    if decision is not None:
        if decision.depth < last:
            under.append(shade(frame, decision.depth + 0.5, "discarded"))
        over.append(level(frame, decision.threshold, f"threshold {fixed(decision.threshold, 2)}"))
    label = f"{measure.title} of the attention in {network.title} by block, trained and untrained"
    return Figure(
        measure.key, measure.title, measure.reads, chart(frame, lines, label, "block", trained.blocks, under, over)
    )


def _deciding_curves(decision: Decision) -> tuple[Curve, Curve | None]:
    """What the decision itself stored, so that the chart shows what decided."""
    blocks = decision.blocks
    numbers = tuple(block.block for block in blocks)
    low, high = [b.low for b in blocks if b.low is not None], [b.high for b in blocks if b.high is not None]
    known = len(low) == len(high) == len(blocks)
    trained = Curve(
        numbers, tuple(b.value for b in blocks), tuple(low) if known else None, tuple(high) if known else None
    )
    before = [block.untrained_value for block in blocks if block.untrained_value is not None]
    return trained, Curve(numbers, tuple(before)) if len(before) == len(blocks) else None


def mosaics(network: NetworkRun) -> list[Mosaic]:
    """The raw maps that were kept, block by block, each on its own colour scale."""
    if network.maps is None:
        return []
    found = []
    for block, maps in zip(network.maps.blocks, network.maps.maps, strict=True):
        top = mosaic_top(maps)
        found.append(Mosaic(block, mosaic(maps, network.maps.grid, top), top))
    return found


def training_figure(run: Run, network: NetworkRun) -> Markup | None:
    """Training loss by step, one line a depth, smoothed over a twentieth of the steps."""
    if run.history is None:
        return None
    rows = run.history[run.history["network"] == network.name]
    seed = run.seeds[0]
    lines = []
    for place, blocks in enumerate(sorted(set(rows["blocks"]), reverse=True)):
        part = rows[(rows["blocks"] == blocks) & (rows["seed"] == seed)]
        window = max(1, len(part) // 20)
        loss = part["loss"].rolling(window, min_periods=1).mean()
        if len(part):
            lines.append(Line(list(zip(part["step"], loss, strict=True)), f"series-{place % 6}", f"{blocks} blocks"))
    if not lines:
        return None
    values = [y for line in lines for _, y in line.points]
    frame = Frame((0, float(rows["step"].max())), nice_range(values, 0.0, None))
    return chart(frame, lines, f"Training loss of {network.title} by step", "step")


def slices(run: Run) -> list[Slice]:
    """The stored slices: reference and, for each network, full and truncated prediction side by side."""
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
        caption = f"{blocks} block{'' if blocks == 1 else 's'}"
        dice = fixed(slice_dice(prediction, reference), 3)
        alt = f"Prediction of {network.title} with {caption}; Dice on this slice {dice}"
        tiles.append(Tile(caption, overlay(prediction, reference), dice, alt))
    return tuple(tiles)


def slice_dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Average Dice of one slice over the classes in reference or prediction; NaN if there are none."""
    values = []
    for index in np.union1d(np.unique(prediction), np.unique(reference)):
        if index:
            a, b = prediction == index, reference == index
            values.append(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    return float(np.mean(values)) if values else float("nan")
