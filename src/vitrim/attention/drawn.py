"""The figures of one network's attention, written into a folder as .png and .pdf."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitrim.attention.decision import Decision
from vitrim.attention.figures import (
    COLUMN,
    draw_decision,
    draw_image,
    draw_measure,
    draw_mosaic,
    draw_query,
    figure,
)
from vitrim.attention.maps import raw_maps, rollout_maps, tokens_of
from vitrim.attention.measures import MEASURES
from vitrim.attention.record import AttentionProfile


def write_profile_figures(
    profile: AttentionProfile, decision: Decision, folder: Path, *, untrained: AttentionProfile | None = None
) -> list[Path]:
    """Write decision, and each measure of the profile under its own name, into `folder`; gives the paths written.

    Of the three units of distance mm is drawn where it is known, patches otherwise.
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
    model: nn.Module,
    image: Tensor,
    folder: Path,
    *,
    blocks: Sequence[int] = (1, 2, 3, 6),
    query: tuple[int, int] | None = None,
    columns: int = 6,
    **where: Any,
) -> list[Path]:
    """Write maps (the mosaics of `blocks`, with the image), query and rollout of one image (1, C, H, W) into `folder`.

    `query` is the row and column of the patch that is followed through all blocks, by its attention (query) and by its
    rollout; the middle by default. `where`: grid, prefix_tokens, layers, as for `raw_maps`. Gives the paths written.
    """
    grid = tokens_of(model, image, **where).grid
    maps = raw_maps(model, image, blocks=None, **where)
    shown = image[0].float().mean(dim=0).cpu().numpy()
    chosen = [block for block in blocks if block in maps]
    with figure(folder / "maps", width=2 * COLUMN, height=2 * COLUMN / (1 + len(chosen)) + 0.25) as drawn:
        first, *rest = drawn.subplots(1, 1 + len(chosen), squeeze=False)[0]
        draw_image(shown, first, title="image")
        for axis, block in zip(rest, chosen, strict=True):
            draw_mosaic(maps[block], grid, axis, title=f"block {block}")
    patch = query or (grid[0] // 2, grid[1] // 2)
    height = 2 * COLUMN / columns * (1.2 * shown.shape[0] / shown.shape[1]) * -(-len(maps) // columns)
    for name, over in (("query", maps), ("query_rollout", rollout_maps(model, image, **where))):
        with figure(folder / name, width=2 * COLUMN, height=height) as drawn:
            draw_query(shown, over, grid, patch, drawn.subplots(), columns=columns)
    return [path for name in ("maps", "query", "query_rollout") for path in _paths(folder / name)]


def _paths(stem: Path) -> list[Path]:
    return [stem.with_suffix(".png"), stem.with_suffix(".pdf")]
