"""`vitrim study`: the whole experiment, from a configuration to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.names import DecoderForm, RuleName
from vitrim.config.reading import study_config, study_folder
from vitrim.config.schema import StudyConfig
from vitrim.progress import Reporter
from vitrim.report.build import build_report
from vitrim.report.live import LiveReport
from vitrim.studies.failures import Failure, failures
from vitrim.studies.participant import participate
from vitrim.studies.runner import run_study, this_machine


@dataclass(frozen=True)
class StudyResult:
    """A finished study: everything is in `folder`."""

    folder: Path
    written: list[Path]
    """The reports; none if every training failed, or on all machines but the first of several."""
    failures: list[Failure]
    """Trainings that failed; the same call tries them again."""


def study(
    source: str | Path | StudyConfig,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    folds: int | None = None,
    depths: str | Sequence[int] | None = None,
    networks: str | Sequence[str] | None = None,
    init: str | Sequence[str] = (),
    devices: int | None = None,
    nodes: int | None = None,
    rule: RuleName | None = None,
    tries: int | None = None,
    noise_floor: bool | None = None,
    decoder: DecoderForm | None = None,
    vit: str | None = None,
    settings: Sequence[str] = (),
    logger: str | None = None,
    ray: str | None = None,
    reporter: Reporter | None = None,
) -> StudyResult:
    """Train the full networks, measure their attention, truncate, train alike, compare, and write the report.

    The same as the command `vitrim study`. The same call continues a study that was stopped, and returns what is there
    of one that is finished.

    Args:
        source: a preset such as "demo", the path of a YAML file, or a configuration.
        data: folder with the data set; not needed by a study of phantoms.
        out: folder for the results; `runs/NAME` by default.
        seed: in place of the study's own.
        seeds: train with each of these: [0, 1, 2], or "0..2".
        folds: train on each of so many folds.
        depths: fixed depths of every network: [1, 3], or "0..12".
        networks: some of the study's networks: ["unetr2d"], or "transunet,unetr2d".
        init: what networks start from: "scratch", "pretrained" (timm's hub) or local weights. What truncated networks
            start from: "inherit" or "distil". One of each kind at most.
        devices: GPUs that share one training.
        nodes: machines that share one training; the same call runs on each of them.
        rule: the rule that proposes the depth ("exchange" by default; docs/depth.md).
        tries: largest number of depths that are trained to find the depth.
        noise_floor: also train the full network with a second seed.
        decoder: form of the decoder of truncated networks: "paper", or "whole" to keep all its scales.
        vit: timm's name of a ViT, in place of the study's own.
        settings: any keys of the configuration: ["training.steps=200"]. The other arguments win.
        logger: tensorboard, wandb, mlflow, or the class name of another of Lightning's loggers, beside the history that
            is always written.
        ray: do the trainings on a Ray cluster: its address, or "local" for one on this machine.

    Raises:
        InputError: for anything that is wrong with these.

    Example:
        >>> import vitrim
        >>> result = vitrim.study("tiny.yaml", data="data", out="run")
        >>> [path.name for path in result.written]
        ['report.md', 'report.tex', 'report.html']
    """
    config = study_config(
        source,
        seed,
        seeds,
        folds,
        depths,
        networks,
        init,
        devices,
        nodes,
        rule,
        tries,
        noise_floor,
        decoder,
        vit,
        settings,
    )
    folder, reporter = study_folder(config, out), reporter or Reporter()
    here = this_machine(config.training, ray)
    if here is not None and here.node > 0:
        participate(here, config.training.nodes, folder, reporter)
        return StudyResult(folder, [], [])
    reporter.listener = live = LiveReport(folder, reporter)
    try:
        run_study(config, None if data is None else Path(data), folder, reporter, logger=logger, ray=ray)
        reporter.listener = None
        written = build_report(folder, reporter) if (folder / "results.csv").is_file() else []
    except BaseException:
        live.ended()
        raise
    if not written:
        live.ended()
    return StudyResult(folder, written, failures(folder))
