"""What a study looks at: a trained network's attention on its own training cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vitrim.attention.decision import Decision
from vitrim.choose import block_influence
from vitrim.config import AttentionConfig
from vitrim.evaluate import EvaluationData
from vitrim.look import CaseImages, Shown, look_at, spread
from vitrim.progress import Reporter, Stage
from vitrim.study.examples import fullest_slice
from vitrim.study.tables import write_table
from vitrim.study.trial import Result, initial, title

INFLUENCE = "influence.csv"


def look(full: Result, config: AttentionConfig, data: EvaluationData, folder: Path, reporter: Reporter) -> Decision:
    """Profile `full` on training cases beside the same network untrained, decide, and keep it all in `folder`.

    influence.csv has the block influence of each case too (`vitrim.choose`). What is there is not redone.
    """
    trial = full.trial
    cases = spread(list(trial.split.train), config.cases)
    if not (folder / "decision.json").is_file():
        with reporter.stage(f"attention of {title(trial)}", 2 * len(cases)) as stage:
            look_at(
                full.network(),
                initial(trial).eval(),
                lambda: case_images(cases, data, config.slices, stage),
                shown_slice(cases[0], data),
                folder,
                config,
                trial.seed,
            )
    if not (folder / INFLUENCE).is_file():
        with reporter.stage(f"block influence of {title(trial)}", len(cases)) as stage:
            found = block_influence(full.network(), case_images(cases, data, config.slices, stage))
        table = pd.DataFrame(found, columns=[str(block + 1) for block in range(found.shape[1])])
        table.insert(0, "case", cases)
        write_table(folder / INFLUENCE, table)
    return Decision.load(folder / "decision.json")


def stored_influence(folder: Path) -> np.ndarray | None:
    """Block influence (cases, blocks) that `look` kept; None where there is none."""
    path = folder / INFLUENCE
    return pd.read_csv(path).drop(columns="case").to_numpy(np.float64) if path.is_file() else None


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
