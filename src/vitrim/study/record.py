"""The whole of a study in `study.json`: what was run, on what data and weights, with what, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vitrim.study.folder import note, noted, versions
from vitrim.study.plan import Plan
from vitrim.study.trial import Result


def record_study(plan: Plan, results: Sequence[Result], out: Path, seconds: float) -> None:
    """Write it down; `seconds` are added to those of earlier runs in the same folder."""
    training = plan.study.training
    trained = sum(float(result.cost["train_seconds"] or 0) for result in results)
    if training.device == "gpu":
        cost = {"gpu_seconds": round(trained * training.processes, 1)}
    else:
        cost = {"cpu_seconds": round(trained * training.processes * torch.get_num_threads(), 1)}
    note(
        out,
        seeds=plan.study.all_seeds,
        splits={str(fold): split.dump() for fold, split in plan.prepared.splits.items()},
        initialised_from=plan.origins,
        versions=versions(plan.study),
        wall_seconds=round(noted(out, "wall_seconds", 0.0) + seconds, 1),
        cost={"train_seconds": round(trained, 1), **cost},
        trials=[result.trial.key for result in results],
    )
