"""`vitrim train`: one network of a study alone, trained and evaluated as the study would, as a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrim.commands.provenance import new_folder
from vitrim.config.names import NetworkName
from vitrim.config.reading import changed, source_config, start_of, with_vit
from vitrim.config.schema import StudyConfig
from vitrim.errors import ConfigurationError
from vitrim.hardware import resolved, sharing_cores
from vitrim.metrics.statistics import network_dice
from vitrim.models.factory import NETWORKS
from vitrim.progress import Reporter
from vitrim.studies.plan import Plan, check_networks
from vitrim.studies.study_data import check_source, open_study
from vitrim.studies.trial import run_trial
from vitrim.training.augmentation import check_augmentation
from vitrim.training.loggers import make_logger


@dataclass(frozen=True)
class TrainingResult:
    """A trained network: `folder` is a checkpoint for the other commands."""

    folder: Path
    average_dice: float
    """On the cases that were held out."""
    cases: int
    """How many these are."""


@sharing_cores()
def train(
    source: str | Path | StudyConfig,
    out: str | Path,
    *,
    network: NetworkName | None = None,
    depth: int | None = None,
    vit: str | None = None,
    data: str | Path | None = None,
    seed: int | None = None,
    init: str | None = None,
    devices: int | None = None,
    settings: Sequence[str] = (),
    logger: str | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train one network of a study, with its first seed and fold, into the new folder `out`, and evaluate it.

    The same as the command `vitrim train`. A truncated network begins with the full one's initial weights. `out` is
    written whole, and holds what a trial's folder in a study does; until then the work lies in a hidden folder beside
    it, and the same call continues it.

    Args:
        source: a preset such as "demo", the path of a YAML file, or a configuration.
        network: which of the study's networks; the first by default.
        depth: transformer blocks; by default all of them.
        vit: timm's name of a ViT, in place of the study's own.
        data: folder with the data set; not needed by a study of phantoms.
        seed: in place of the study's own.
        init: what the network starts from: "scratch", "pretrained" (timm's hub) or local weights.
        devices: GPUs that share the training.
        settings: any keys of the configuration: ["training.steps=200"]. The other arguments win.
        logger: one of Lightning's loggers by its class name.

    Raises:
        InputError: for anything that is wrong with these.

    Example:
        >>> import vitrim
        >>> result = vitrim.train("tiny.yaml", "trained", data="data", depth=1)
        >>> result.cases
        3
    """
    out, reporter = new_folder(out), reporter or Reporter()
    study = source_config(source, settings)
    changes = {"training": {} if devices is None else {"devices": devices}}
    only = {} if seed is None else {"seed": seed, "seeds": None}
    study = changed(study, **changes, **only, **with_vit(vit), **start_of([init] if init else []))
    name: NetworkName = next(iter(study.networks)) if network is None else network
    depth = study.full_depth if depth is None else depth
    _check(study, name, depth)
    check_source(study, None if data is None else Path(data))
    study = study.model_copy(
        update={"networks": {name: study.networks[name]}, "training": resolved(study.training), "depths": None}
    )
    work = out.with_name(f".{out.name}.training")
    make_logger(logger, work / "logs", "check")
    check_augmentation(study.training.augment)
    origins = check_networks(study)
    with open_study(study, None if data is None else Path(data), work, reporter) as study_data:
        plan = Plan(study, study_data, origins)
        result = run_trial(plan.trial(plan.run_keys[0], depth), study_data.data, work, reporter, logger)
        dice, cases = network_dice(result.cases), result.cases["case"].nunique()
        if (work / "logs").is_dir():
            (work / "logs").rename(result.folder / "logs")
        result.folder.rename(out)
    shutil.rmtree(work)
    return TrainingResult(out, dice, cases)


def _check(study: StudyConfig, network: str, depth: int) -> None:
    """Refuse what is not possible, before any data are read."""
    if network not in study.networks:
        raise ConfigurationError(f"the study {study.name} has no {network!r}; it has {', '.join(study.networks)}")
    if study.training.nodes > 1:
        raise ConfigurationError("one network is trained on one machine: set training.nodes to 1")
    if study.truncated_from != "scratch" and depth < study.full_depth:
        raise ConfigurationError(
            f"a truncated network of this study ({study.truncated_from}) needs the trained full one: "
            f"train that with --depth {study.full_depth}, then use vitrim compress --recover"
        )
    shallowest = NETWORKS[network].shallowest
    if not shallowest <= depth <= study.full_depth:
        raise ConfigurationError(f"{network} has {shallowest} to {study.full_depth} blocks, not {depth}")
