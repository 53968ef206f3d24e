"""Figures of one network's attention as PNG files, and its explorer as a page, for `vitrim attention`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from torch import nn

from vitrim.attention.decision import Decision
from vitrim.attention.measures import MEASURES
from vitrim.attention.record import AttentionProfile
from vitrim.files import replacing, write_text
from vitrim.report.page import explorer_page
from vitrim.report.run import arrays
from vitrim.study.explorer import write_explorer

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator


def write_plots(folder: Path, title: str) -> list[Path]:
    """Draw what `vitrim.look.look_at` left in `folder`: measures.png and maps.png."""
    return [_measures(folder, title), _maps(folder, title)]


def write_explorer_page(
    folder: Path, title: str, network: nn.Module, blocks: int, names: Sequence[str], images: np.ndarray
) -> Path:
    """Write explorer.html: point at a patch of images (n, C, H, W) and see where it looks in every block."""
    grid = AttentionProfile.load(folder).grid
    stored, page = folder / "explorer.npz", folder / "explorer.html"
    slices = [0] * len(names)
    write_explorer(stored, {blocks: network}, images, grid=grid, cases=names, slices=slices, segment=False)
    write_text(page, explorer_page(title, [(title, stored)]))
    return page


def _measures(folder: Path, title: str) -> Path:
    """Every measure of the head-averaged attention by block: mean over cases with their spread, and untrained."""
    decision = Decision.load(folder / "decision.json")
    trained = _by_block(AttentionProfile.load(folder))
    baseline = folder / "untrained"
    untrained = _by_block(AttentionProfile.load(baseline)) if baseline.is_dir() else None
    names = [name for name in MEASURES if name in trained]
    figure, panels = plt.subplots(
        -(-len(names) // 3), 3, figsize=(12, 3 * -(-len(names) // 3)), squeeze=False, layout="constrained"
    )
    for panel, name in zip(panels.flat, names, strict=False):
        table = trained[name]  # (cases, blocks)
        blocks = np.arange(1, table.shape[1] + 1)
        low, high = np.percentile(table, [2.5, 97.5], axis=0)
        panel.fill_between(blocks, low, high, alpha=0.25, linewidth=0, color="#0072b2")
        panel.plot(blocks, table.mean(axis=0), "o-", color="#0072b2", markersize=4, label="trained, 95 % of cases")
        if untrained is not None and name in untrained:
            panel.plot(blocks, untrained[name].mean(axis=0), "--", color="#555555", label="untrained")
        if name == decision.measure:
            panel.axhline(decision.threshold, color="#d55e00", linewidth=1, label=f"threshold {decision.threshold:.3g}")
            panel.axvline(decision.depth, color="#009e73", linewidth=1, linestyle=":", label=f"keep {decision.depth}")
        unit = MEASURES[name].unit
        panel.set_title(f"{MEASURES[name].title} ({unit})" if unit else MEASURES[name].title, fontsize=10)
        panel.set_xlabel("block")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(fontsize=7)
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    figure.suptitle(f"{title}: attention by block, heads averaged")
    return _save(figure, folder / "measures.png")


def _maps(folder: Path, title: str) -> Path:
    """Raw attention maps: each tile is where one patch looks, tiles lie as their patches do (paper, figures 4, 5)."""
    stored = arrays(folder / "maps.npz")
    assert stored is not None  # written together with the decision
    height, width = (int(n) for n in stored["grid"])
    blocks = stored["blocks"].tolist()
    figure, panels = plt.subplots(
        1, len(blocks) + 1, figsize=(4 * (len(blocks) + 1), 4.4), squeeze=False, layout="constrained"
    )
    panels.flat[0].imshow(stored["image"], cmap="gray")
    panels.flat[0].set_title(f"{stored['case']}, slice {int(stored['slice']) + 1}", fontsize=10)
    top = float(np.quantile(stored["maps"], 0.995))
    for panel, block, maps in zip(panels.flat[1:], blocks, stored["maps"], strict=True):
        tiles = np.full((height, width, height + 1, width + 1), np.nan)
        tiles[:, :, :height, :width] = maps.reshape(height, width, height, width)
        mosaic = tiles.transpose(0, 2, 1, 3).reshape(height * (height + 1), width * (width + 1))
        shown = panel.imshow(mosaic, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
        panel.set_title(f"block {block}", fontsize=10)
        if block == blocks[-1]:
            figure.colorbar(shown, ax=panels, shrink=0.8, label="attention")
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.suptitle(f"{title}: where each patch looks (one tile a patch, laid out as the patches are)")
    return _save(figure, folder / "maps.png")


def _by_block(profile: AttentionProfile) -> dict[str, np.ndarray]:
    """Head-averaged values (cases, blocks) of each measure."""
    table = profile.table()
    table = table[table["head"].astype(str) == "mean"]
    return {
        str(name): part.pivot(index="case", columns="block", values="value").to_numpy()
        for name, part in table.groupby("measure")
    }


def _save(figure: matplotlib.figure.Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", bbox_inches="tight")
    plt.close(figure)
    return path
