"""`vitrim study`: the whole experiment, from a configuration to the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrim.config.reading import changed, load_study, whole_numbers
from vitrim.config.schema import StudyConfig
from vitrim.errors import ConfigurationError
from vitrim.progress import Reporter
from vitrim.report.build import build_report
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
        logger: one of Lightning's loggers by its class name, beside the history that is always written.
        ray: do the trainings on a Ray cluster: its address, or "local" for one on this machine.

    Raises:
        InputError: for anything that is wrong with these.

    Example:
        >>> import vitrim
        >>> result = vitrim.study("tiny.yaml", data="data", out="run")
        >>> [path.name for path in result.written]
        ['report.md', 'report.tex', 'report.html']
    """
    config = study_config(source, seed, seeds, folds, depths, networks, init, devices, nodes)
    folder, reporter = study_folder(config, out), reporter or Reporter()
    if config.training.nodes > 1:  # without this, torch prints forty lines when another machine is gone
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    here = this_machine(config.training, ray)
    if here is not None and here.node > 0:
        participate(here, config.training.nodes, folder, reporter)
        return StudyResult(folder, [], [])
    run_study(config, None if data is None else Path(data), folder, reporter, logger=logger, ray=ray)
    written = build_report(folder, reporter) if (folder / "results.csv").is_file() else []
    return StudyResult(folder, written, failures(folder))


def study_folder(config: StudyConfig, out: str | Path | None) -> Path:
    """The folder of a study's results: `out`, or `runs/NAME`."""
    return Path("runs") / config.name if out is None else Path(out)


def study_config(
    source: str | Path | StudyConfig,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    folds: int | None = None,
    depths: str | Sequence[int] | None = None,
    networks: str | Sequence[str] | None = None,
    init: str | Sequence[str] = (),
    devices: int | None = None,
    nodes: int | None = None,
) -> StudyConfig:
    """A study with the options of `study` in the place of its own; ConfigurationError if they are not possible."""
    config = source if isinstance(source, StudyConfig) else load_study(source)
    changes: dict[str, Any] = {"training": {}}
    if seed is not None:
        changes["seed"] = seed
    if seeds is not None:
        changes["seeds"] = whole_numbers(seeds, "--seeds") if isinstance(seeds, str) else list(seeds)
    if folds is not None:
        changes["folds"] = folds
    if depths is not None:
        changes["depths"] = whole_numbers(depths, "--depths") if isinstance(depths, str) else list(depths)
    if networks is not None:
        names = networks.split(",") if isinstance(networks, str) else networks
        changes["networks"] = _chosen(config, [name.strip() for name in names])
    if devices is not None:
        changes["training"]["devices"] = devices
    if nodes is not None:
        changes["training"]["nodes"] = nodes
    return changed(config, **changes, **start_of([init] if isinstance(init, str) else init))


def start_of(init: Sequence[str]) -> dict[str, Any]:
    """Keys of a study that say what networks, and what truncated networks, start from."""
    truncated = [value for value in init if value in ("inherit", "distil")]
    whole = [value for value in init if value not in truncated]
    if len(truncated) > 1 or len(whole) > 1:
        raise ConfigurationError(
            f"--init: {' and '.join(truncated if len(truncated) > 1 else whole)} exclude each other"
        )
    changes: dict[str, Any] = {"truncated_from": truncated[0]} if truncated else {}
    if whole:
        changes["pretrained"] = {"scratch": False, "pretrained": True}.get(whole[0], whole[0])
    return changes


def _chosen(config: StudyConfig, wanted: Sequence[str]) -> dict[str, Any]:
    """Some of the study's networks, in the study's order."""
    for name in wanted:
        if name not in config.networks:
            raise ConfigurationError(
                f"--networks: the study {config.name} has no {name!r}; it has {', '.join(config.networks)}"
            )
    return {name: network.model_dump() for name, network in config.networks.items() if name in wanted}
