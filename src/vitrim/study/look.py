"""Looking at a trained network's attention, and deciding how many blocks it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vitrim.attention.decision import Decision, decide_depth
from vitrim.attention.maps import raw_maps
from vitrim.attention.profile import profile_attention
from vitrim.config import AttentionConfig
from vitrim.evaluate import EvaluationData
from vitrim.files import replacing
from vitrim.progress import Reporter, Stage
from vitrim.study.examples import fullest_slice
from vitrim.study.trial import Result, initial, title

T = TypeVar("T")


def look(full: Result, config: AttentionConfig, data: EvaluationData, folder: Path, reporter: Reporter) -> Decision:
    """Profile `full` on training cases beside the same network untrained, decide, and keep it all in `folder`.

    Writes profile.json, profile.csv, untrained/, maps.npz and decision.json; a folder that is there is not redone.
    """
    if folder.is_dir():
        return Decision.load(folder / "decision.json")
    trial = full.trial
    cases = _spread(list(trial.split.train), config.cases)
    trained, untrained = full.network(), initial(trial).eval()
    with (
        reporter.stage(f"attention of {title(trial)}", 2 * len(cases)) as stage,
        replacing(folder) as unfinished,
    ):
        unfinished.mkdir()
        profile = profile_attention(trained, _images(cases, data, config, stage))
        baseline = profile_attention(untrained, _images(cases, data, config, stage))
        decision = decide_depth(
            profile,
            measure=config.measure,
            head=config.head,
            threshold=config.threshold,
            untrained=baseline,
            seed=trial.seed,
        )
        profile.save(unfinished)
        baseline.save(unfinished / "untrained")
        decision.save(unfinished / "decision.json")
        _write_maps(unfinished / "maps.npz", trained, cases[0], data, config)
    return decision


def _images(
    cases: list[str], data: EvaluationData, config: AttentionConfig, stage: Stage
) -> Iterator[tuple[str, Tensor, tuple[float, float] | None]]:
    """Give (case, slices (S, C, H, W), millimetres of a network pixel), one case after the other."""
    for case in cases:
        prepared = data.cache.case(case)
        chosen = _spread(list(range(len(prepared.images))), config.slices)
        yield case, torch.from_numpy(np.array(prepared.images[chosen])), prepared.pixel_spacing
        stage.advance(note=case)


def _spread(items: list[T], number: int | None) -> list[T]:
    """Choose `number` of `items`, evenly spaced; all of them if None."""
    if number is None or number >= len(items):
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, number)]


def _write_maps(path: Path, network: torch.nn.Module, case: str, data: EvaluationData, config: AttentionConfig) -> None:
    """Write the raw maps of one slice (paper, figures 4 and 5): blocks (B,), maps (B, N, N) averaged over the heads."""
    prepared = data.cache.case(case)
    labels = prepared.labels
    index = fullest_slice(labels) if labels is not None else len(prepared.images) // 2
    image = np.array(prepared.images[index : index + 1])
    depth = len(network.blocks)  # type: ignore[arg-type]
    maps = raw_maps(network, torch.from_numpy(image), blocks=[block for block in config.maps if block <= depth])
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            case=np.array(case),
            slice=np.array(index),
            image=image[0, 0],
            grid=np.array(network.token_grid),
            blocks=np.array(list(maps)),
            maps=np.stack([np.asarray(part, dtype=np.float32) for part in maps.values()]),
        )
