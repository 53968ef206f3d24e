"""`vitrim train`: one network of a study by itself, trained and evaluated as the study would, as a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from vitrim.config import StudyConfig
from vitrim.errors import InputError
from vitrim.models.factory import NETWORKS
from vitrim.progress import Reporter
from vitrim.study.loggers import make_logger
from vitrim.study.opening import opened
from vitrim.study.plan import FULL_DEPTH, Plan, check_networks
from vitrim.study.statistics import average_dice
from vitrim.study.trial import Result, run_trial
from vitrim.train import resolve


def train_alone(
    study: StudyConfig,
    network: str,
    depth: int,
    source: Path | None,
    out: Path,
    reporter: Reporter,
    logger: str | None = None,
) -> list[str]:
    """Train `network` with `depth` blocks as `study` says, with its first seed and fold, into the folder `out`.

    A truncated network begins with the full one's initial weights. `out` appears whole, and holds what a trial's folder
    in a study does; until then the work lies hidden beside it, and the same call goes on with it.

    Returns what came of it, as lines. InputError as from `vitrim.study.runner.run_study`, or if `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder with --out")
    if network not in study.networks:
        raise InputError(f"the study {study.name} has no {network!r}; it has {', '.join(study.networks)}")
    if study.training.nodes > 1:
        raise InputError("one network is trained on one machine: set training.nodes to 1")
    if study.truncated_from != "scratch" and depth < FULL_DEPTH:
        raise InputError(
            f"a truncated network of this study ({study.truncated_from}) needs the trained full one: "
            "train that with --depth 12, then take vitrim compress --recover"
        )
    only = study.networks[network]
    study = study.model_copy(update={"networks": {network: only}, "training": resolve(study.training), "depths": None})
    shallowest = NETWORKS[network].shallowest
    if not shallowest <= depth <= FULL_DEPTH:
        raise InputError(f"{network} has {shallowest} to {FULL_DEPTH} blocks, not {depth}")
    work = out.with_name(f".{out.name}.training")
    make_logger(logger, work / "logs", "check")
    origins = check_networks(study)
    with opened(study, source, work, reporter) as prepared:
        plan = Plan(study, prepared, origins)
        result = run_trial(plan.trial(plan.places[0], depth), prepared.data, work, reporter, logger)
        said = _said(result)
        if (work / "logs").is_dir():
            (work / "logs").rename(result.folder / "logs")
        result.folder.rename(out)
    shutil.rmtree(work)
    return [said, f"wrote {out}"]


def _said(result: Result) -> str:
    table = result.cases.pivot(index="case", columns="class", values="dice")
    return f"average Dice {average_dice(table.to_numpy()):.3f} on {len(table)} held-out cases"
