"""What a study looks at: a trained network's attention on its own training cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vitrim.attention.decision import Decision
from vitrim.config import AttentionConfig
from vitrim.evaluate import EvaluationData
from vitrim.look import CaseImages, Shown, look_at, spread
from vitrim.progress import Reporter, Stage
from vitrim.study.examples import fullest_slice
from vitrim.study.trial import Result, initial, title


def look(full: Result, config: AttentionConfig, data: EvaluationData, folder: Path, reporter: Reporter) -> Decision:
    """Profile `full` on training cases beside the same network untrained, decide, and keep it all in `folder`.

    A folder that is there is not redone.
    """
    if (folder / "decision.json").is_file():
        return Decision.load(folder / "decision.json")
    trial = full.trial
    cases = spread(list(trial.split.train), config.cases)
    with reporter.stage(f"attention of {title(trial)}", 2 * len(cases)) as stage:
        return look_at(
            full.network(),
            initial(trial).eval(),
            lambda: case_images(cases, data, config.slices, stage),
            shown_slice(cases[0], data),
            folder,
            config,
            trial.seed,
        )


def case_images(cases: list[str], data: EvaluationData, slices: int | None, stage: Stage) -> Iterator[CaseImages]:
    """Give one case after the other, `slices` evenly spaced slices of each."""
    for case in cases:
        prepared = data.cache.case(case)
        chosen = spread(list(range(len(prepared.images))), slices)
        yield case, torch.from_numpy(np.array(prepared.images[chosen])), prepared.pixel_spacing
        stage.advance(note=case)


def shown_slice(case: str, data: EvaluationData) -> Shown:
    """The slice of a case whose raw maps are kept: the fullest, or the middle one where there is no label."""
    prepared = data.cache.case(case)
    index = len(prepared.images) // 2 if prepared.labels is None else fullest_slice(prepared.labels)
    return Shown(case, index, np.array(prepared.images[index]))
