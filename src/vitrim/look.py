"""Looking at one network's attention: profile it beside itself untrained, decide its depth, keep it all in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.attention.decision import Decision, decide_depth
from vitrim.attention.drawn import write_map_figures, write_profile_figures
from vitrim.attention.maps import raw_maps
from vitrim.attention.profile import profile_attention
from vitrim.config import AttentionConfig
from vitrim.files import replacing

T = TypeVar("T")

CaseImages = tuple[str, Tensor, tuple[float, float] | None]
"""A case: its id, slices (S, C, H, W), and millimetres of a pixel (row, column) where they are known."""


@dataclass(frozen=True)
class Shown:
    """The one slice whose raw maps are kept: image (C, H, W)."""

    case: str
    number: int
    image: np.ndarray


def look_at(
    network: nn.Module,
    untrained: nn.Module | None,
    images: Callable[[], Iterable[CaseImages]],
    shown: Shown,
    folder: Path,
    config: AttentionConfig,
    seed: int,
) -> Decision:
    """Write profile.json, profile.csv, untrained/, maps.npz, decision.json and figures/ into `folder`, whole or not.

    `images` is called once for each of the two networks. InputError as from `profile_attention`.
    """
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        profile = profile_attention(network, images())
        baseline = None if untrained is None else profile_attention(untrained, images())
        decision = decide_depth(
            profile,
            measure=config.measure,
            head=config.head,
            threshold=config.threshold,
            untrained=baseline,
            seed=seed,
        )
        profile.save(unfinished)
        if baseline is not None:
            baseline.save(unfinished / "untrained")
        decision.save(unfinished / "decision.json")
        write_profile_figures(profile, decision, unfinished / "figures", untrained=baseline)
        write_map_figures(network, torch.from_numpy(shown.image[None]), unfinished / "figures", blocks=config.maps)
        _write_maps(unfinished / "maps.npz", network, shown, profile.grid, config.maps)
    return decision


def spread(items: list[T], number: int | None) -> list[T]:
    """Choose `number` of `items`, evenly spaced; all of them if None."""
    if number is None or number >= len(items):
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, number)]


def _write_maps(path: Path, network: nn.Module, shown: Shown, grid: tuple[int, int], blocks: list[int]) -> None:
    """Write the raw maps of one slice (paper, figures 4 and 5): blocks (B,), maps (B, N, N) averaged over the heads."""
    maps = raw_maps(network, torch.from_numpy(shown.image[None]), blocks=blocks)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            case=np.array(shown.case),
            slice=np.array(shown.number),
            image=shown.image[0],
            grid=np.array(grid),
            blocks=np.array(list(maps)),
            maps=np.stack(list(maps.values())),
        )
