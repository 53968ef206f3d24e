"""Draws figures of attention from stored results, in the width of a paper's column.

Functions named `draw_...` draw into one matplotlib axis and return it. Functions named `write_...` write .png and
.pdf files. The colours are those of Okabe & Ito (2008), and of `colour_scale` for attention: colour-blind readers can
distinguish them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from vitrim.attention.colour_scale import COLORMAP, TIMES_UNIFORM, scale_top, uniform_weight
from vitrim.attention.decision import Decision, stored_rule
from vitrim.attention.maps import StoredMaps, mosaic, roll_out
from vitrim.attention.measures import MEASURES
from vitrim.attention.profile import AttentionProfile
from vitrim.errors import InputError
from vitrim.files import replacing
from vitrim.metrics.intervals import mean_interval

COLUMN = 3.4
"""Width of a column of a paper, in inches."""
BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#999999", "#009E73"
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}


@contextmanager
def figure(path: Path, width: float = COLUMN, height: float = 2.4) -> Iterator[Figure]:
    """Open a figure in this module's style and write it to `path` as .png and .pdf at the end.

    `width` and `height` are in inches.
    """
    with rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn
        metadata: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}
        for suffix, stamps in metadata.items():  # no date: the same figure gives the same bytes
            with replacing(path.with_suffix(suffix)) as temporary:
                drawn.savefig(temporary, format=suffix[1:], metadata=stamps)
            drawn.set_layout_engine("none")  # the second file takes the layout of the first


def draw_measure(
    profile: AttentionProfile, measure: str, axis: Axes, *, untrained: AttentionProfile | None = None, seed: int = 0
) -> Axes:
    """Draw a measure by block, as means over cases.

    Dots are heads. The line is the head-averaged attention, with its 95 % interval over cases. `untrained` adds the
    same network before training as a dashed line.
    """
    blocks = np.arange(1, profile.blocks + 1)
    for head in range(1, max(profile.heads) + 1):
        by_head = profile.of(measure, head).mean(axis=0)
        if not np.isnan(by_head).all():
            label = "each head" if head == 1 else None
            axis.plot(blocks, by_head, ".", color=GREY, markersize=3, label=label, zorder=1)
    values = profile.of(measure)
    known = values[~np.isnan(values).any(axis=1)]  # in mm, only cases with a spacing have values
    ends = mean_interval(known, seed=seed)
    if ends is not None:
        axis.fill_between(blocks, *ends, color=BLUE, alpha=0.25, linewidth=0, zorder=2)
    axis.plot(blocks, known.mean(axis=0), "o-", color=BLUE, markersize=3, linewidth=1.2, label="head average", zorder=3)
    if untrained is not None:
        before = np.nanmean(untrained.of(measure), axis=0)
        axis.plot(blocks, before, "--", color=ORANGE, linewidth=1, label="untrained", zorder=2)
    return _by_block(axis, measure)


def draw_decision(decision: Decision, axis: Axes) -> Axes:
    """Draw the deciding measure by block with its interval and the threshold. Discarded blocks are shaded."""
    blocks = [block.block for block in decision.blocks]
    values = np.array([block.value for block in decision.blocks])
    if all(block.low is not None and block.high is not None for block in decision.blocks):
        ends = np.array([(block.low, block.high) for block in decision.blocks], dtype=float)
        errors = np.abs(ends.T - values)
        axis.errorbar(blocks, values, errors, fmt="o-", color=BLUE, markersize=3, linewidth=1.2, capsize=2)
    else:
        axis.plot(blocks, values, "o-", color=BLUE, markersize=3, linewidth=1.2)
    before = [block.untrained_value for block in decision.blocks]
    if all(value is not None for value in before):
        axis.plot(blocks, np.array(before, dtype=float), "--", color=ORANGE, linewidth=1, label="untrained")
    axis.axhline(decision.threshold, color=GREEN, linewidth=1, label=f"threshold {decision.threshold_text}")
    if decision.depth < len(blocks):
        axis.axvspan(
            decision.depth + 0.5, len(blocks) + 0.5, color=GREY, alpha=0.2, linewidth=0, label="beyond the rule"
        )
    if decision.low != decision.high:
        axis.axvspan(
            decision.low - 0.3,
            decision.high + 0.3,
            color=BLUE,
            alpha=0.12,
            linewidth=0,
            label="depths that the intervals allow",
        )
    uniform = [block for block in decision.blocks if block.uniform]
    if uniform:
        numbers, heights = [block.block for block in uniform], [block.value for block in uniform]
        (ring,) = axis.plot(numbers, heights, "o", color=BLUE, markersize=6, label="as uniform", zorder=4)
        ring.set_markerfacecolor("white")
    axis.set_xlim(0.5, len(blocks) + 0.5)
    return _by_block(axis, decision.measure)


def _by_block(axis: Axes, measure: str) -> Axes:
    axis.set_xlabel("block")
    axis.set_ylabel(MEASURES[measure].label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if MEASURES[measure].low is not None:
        axis.set_ylim(bottom=MEASURES[measure].low)
    axis.legend(frameon=False)
    return axis


def draw_mosaic(
    maps: np.ndarray, grid: tuple[int, int], axis: Axes, *, title: str = "", top: float | None = None
) -> Axes:
    """Draw the mosaic of one block from `maps` (N, N).

    The colour scale ends at `top`, by default at four times uniform attention (`colour_scale`).
    """
    top = scale_top(len(maps)) if top is None else top
    axis.imshow(mosaic(maps, grid), cmap=COLORMAP, vmin=0, vmax=top, interpolation="nearest")
    return _bare(axis, title)


def draw_image(image: np.ndarray, axis: Axes, *, title: str = "") -> Axes:
    """Draw the image (H, W) in grey."""
    axis.imshow(image, cmap="gray", interpolation="nearest")
    return _bare(axis, title)


def draw_query(
    image: np.ndarray,
    maps: Mapping[int, np.ndarray],
    grid: tuple[int, int],
    query: tuple[int, int],
    axis: Axes,
    *,
    columns: int = 6,
) -> Axes:
    """Draw the map of one query patch over the image (H, W), for each block. A frame marks the patch.

    `maps` holds (N, N) by block, as from `raw_maps(model, image, blocks=None)` or `roll_out`. `query` is the row and
    column of the patch. All blocks have one colour scale (`colour_scale`).

    Raises InputError if the grid has no such patch.
    """
    height, width = image.shape
    if not (0 <= query[0] < grid[0] and 0 <= query[1] < grid[1]):
        raise InputError(f"there is no patch {query} in a grid of {grid[0]}×{grid[1]}")
    gap = width // 16
    for place, (block, weights) in enumerate(maps.items()):
        row, column = divmod(place, columns)
        left, top = column * (width + gap), row * (height + 3 * gap)
        extent = (left, left + width, top + height, top)
        axis.imshow(image, cmap="gray", extent=extent, interpolation="nearest")
        seen = weights[query[0] * grid[1] + query[1]].reshape(grid)
        share = np.minimum(1.0, seen / scale_top(seen.size))
        veil = colormaps[COLORMAP](share)
        veil[..., 3] = 0.3 + 0.55 * share  # as in the explorer: weak attention is more transparent
        axis.imshow(veil, extent=extent, interpolation="nearest")
        patch = (height / grid[0], width / grid[1])
        corner = (left + query[1] * patch[1], top + query[0] * patch[0])
        axis.add_patch(Rectangle(corner, patch[1], patch[0], fill=False, edgecolor="white", linewidth=1))
        axis.text(left + width / 2, top - gap / 2, f"block {block}", ha="center", va="bottom", fontsize=7)
    rows = -(-len(maps) // columns)
    axis.set_xlim(0, min(len(maps), columns) * (width + gap) - gap)
    axis.set_ylim(rows * (height + 3 * gap) - 3 * gap, -3 * gap)
    return _bare(axis, "")


def draw_scale(drawn: Figure, axes: Sequence[Axes], patches: int) -> None:
    """Draw the colour scale of attention over N patches beside `axes`, with a mark at uniform attention."""
    uniform, top = uniform_weight(patches), scale_top(patches)
    colours = ScalarMappable(Normalize(0, top), COLORMAP)
    bar = drawn.colorbar(colours, ax=list(axes), ticks=[0, uniform, top], extend="max", aspect=30, fraction=0.05)
    bar.ax.set_yticklabels(["0", "uniform", f"{TIMES_UNIFORM} × uniform"])
    bar.ax.axhline(uniform, color="white", linewidth=1)


def _bare(axis: Axes, title: str) -> Axes:
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def write_profile_figures(
    profile: AttentionProfile, decision: Decision, folder: Path, *, untrained: AttentionProfile | None = None
) -> list[Path]:
    """Write the figure `decision` and one figure per measure, named after it, into `folder`. Returns the paths.

    The attention distance is drawn in one unit: mm if the spacing is known, otherwise patches.
    """
    written = []
    distances = [name for name in ("distance_mm", "distance_patches", "distance_pixels") if name in profile.measures]
    for name in MEASURES:
        if name not in profile.measures or name in distances[1:]:
            continue
        before = untrained if untrained is not None and name in untrained.measures else None
        with figure(folder / name) as drawn:
            draw_measure(profile, name, drawn.subplots(), untrained=before, seed=decision.seed)
        written += _paths(folder / name)
    with figure(folder / "decision") as drawn:
        draw_decision(decision, drawn.subplots())
    return written + _paths(folder / "decision")


def write_map_figures(
    stored: StoredMaps, folder: Path, *, query: tuple[int, int] | None = None, columns: int = 6
) -> list[Path]:
    """Write the figures `maps`, `query` and `query_rollout` of one slice into `folder`. Returns the paths.

    `maps` shows the image and the mosaics of the blocks `stored.shown`. `query` shows the attention of one patch in
    all blocks, and `query_rollout` its rollout. `query` is the row and column of this patch, by default the middle.
    If `stored` does not hold all blocks, only `maps` is written.
    """
    maps, grid = dict(zip(stored.blocks, stored.maps, strict=True)), stored.grid
    chosen = [block for block in stored.shown if block in maps]
    with figure(folder / "maps", width=2 * COLUMN, height=2 * COLUMN / (1 + len(chosen)) + 0.25) as drawn:
        first, *rest = drawn.subplots(1, 1 + len(chosen), squeeze=False)[0]
        draw_image(stored.image, first, title="image")
        for axis, block in zip(rest, chosen, strict=True):
            draw_mosaic(maps[block], grid, axis, title=f"block {block}")
        draw_scale(drawn, rest, grid[0] * grid[1])
    written = _paths(folder / "maps")
    if stored.blocks != tuple(range(1, len(stored.blocks) + 1)):
        return written  # the rollout needs every block
    patch = query or (grid[0] // 2, grid[1] // 2)
    height, width = stored.image.shape
    tall = 2 * COLUMN / columns * (1.2 * height / width) * -(-len(maps) // columns)
    rolled = dict(zip(stored.blocks, roll_out(stored.maps), strict=True))
    for name, over in (("query", maps), ("query_rollout", rolled)):
        with figure(folder / name, width=2 * COLUMN, height=tall) as drawn:
            axis = draw_query(stored.image, over, grid, patch, drawn.subplots(), columns=columns)
            draw_scale(drawn, [axis], grid[0] * grid[1])
        written += _paths(folder / name)
    return written


def write_figures(folder: Path) -> list[Path]:
    """Draw the results of `vitrim.attention.analysis.analyse_network` in `folder` into the folder `folder / "figures"`.

    Returns the paths; none if `folder` has no profile or no decision.
    """
    decision = stored_rule(folder)
    if not (folder / "profile.json").is_file() or decision is None:
        return []
    profile = AttentionProfile.load(folder)
    before = folder / "untrained"
    untrained = AttentionProfile.load(before) if (before / "profile.json").is_file() else None
    stored = StoredMaps.load(folder / "maps.npz")
    with replacing(folder / "figures") as unfinished:
        written = write_profile_figures(profile, decision, unfinished, untrained=untrained)
        if stored is not None:
            written += write_map_figures(stored, unfinished)
    return [folder / "figures" / path.name for path in written]


def _paths(stem: Path) -> list[Path]:
    return [stem.with_suffix(".png"), stem.with_suffix(".pdf")]
