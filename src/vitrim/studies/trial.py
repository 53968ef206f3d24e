"""A trial: one trained and evaluated network. A hash of its configuration is part of its folder's name."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vitrim import __version__
from vitrim.config.names import TruncatedStart
from vitrim.config.network_schema import NetworkConfig, Strict
from vitrim.config.schema import TrainConfig
from vitrim.data.cache import PreparedData, SliceCache, SliceDataset
from vitrim.data.recipe import RECIPE, Recipe
from vitrim.data.sampling import evenly_spaced
from vitrim.data.split import Split
from vitrim.evaluation.accuracy import evaluate_cases
from vitrim.evaluation.cost import measure_costs
from vitrim.files import parse_json, read_table, replacing, write_json, write_table
from vitrim.hardware import Hardware
from vitrim.metrics.statistics import VERDICT_CASES
from vitrim.models.checkpoint import load_model, write_model
from vitrim.models.factory import build
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.progress import Reporter
from vitrim.studies.coordinator import Coordinator
from vitrim.studies.folder import digest
from vitrim.studies.status import Heartbeat
from vitrim.studies.trial_files import NESTED, TRIAL, TUNING, nested_tables
from vitrim.training.distillation import recover
from vitrim.training.loggers import make_logger
from vitrim.training.loop import Training, history_table, total_steps, train_network

EXCHANGE_CASES = 20
"""Number of training cases on which a depth is proposed if there are too few tuning cases."""


class Trial(Strict):
    """The configuration of one trial: everything that decides its outcome."""

    network: NetworkConfig
    """The full network; it is truncated to `blocks` before the training starts."""
    blocks: int
    """Number of transformer blocks of the trained network."""
    training: TrainConfig
    seed: int
    fold: int = 0
    """Number of the fold, counted from 0. It is not part of `key`, because `split` decides the outcome."""
    data: str
    """Fingerprint of the prepared data of the cases that decide the outcome."""
    split: Split
    empty_slices: bool
    """Whether to train also on slices without any label."""
    weights: str = "random"
    """Initial weights of the full network, by content (`vitrim.studies.plan.origin_by_content`)."""
    start: TruncatedStart = "scratch"
    """Weights from which a truncated network starts. `scratch`: the full network's initial weights. Otherwise: its
    trained weights, from the trial `teacher`."""
    teacher: str | None = None
    """Key of the full network's trial; None for `scratch`."""
    version: str = __version__

    @cached_property
    def key(self) -> str:
        """Trial key, the name of the trial's folder. It changes only with what decides the outcome."""
        truncated_whole = self.network.decoder == "whole" and self.blocks < self.network.depth
        absent = {name for name, there in (("decoder", truncated_whole), ("vit", self.network.vit)) if not there}
        one = {"nodes"} if self.training.nodes == 1 else set()  # older versions had no `nodes`; their keys stay valid
        plain = TrainConfig(steps=1)
        newer = ("nested", "compile", "augment", "checkpoint")
        without: dict[str, Any] = {
            "fold": True,
            "network": {"pretrained", *absent},
            "training": {
                "workers",
                *one,
                *(name for name in newer if getattr(self.training, name) == getattr(plain, name)),
            },
        }
        if self.training.checkpoint == "last":
            without["split"] = {"tuning"}  # tuning cases then matter only because `train` lacks them
        if self.start == "scratch":
            without |= {"start": True, "teacher": True}
        return f"{self.network.name}-{self.blocks}-{digest(self.model_dump(mode='json', exclude=without))}"


@dataclass(frozen=True)
class Result:
    """The result of a finished trial, in its folder."""

    trial: Trial
    folder: Path

    def network(self) -> Network:
        """Load the trained network, in eval mode on the CPU."""
        return load_model(self.folder)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Per-case table: case, class, dice, hd95, reference_voxels, predicted_voxels."""
        return read_table(self.folder / "cases.csv")

    @cached_property
    def tuning(self) -> pd.DataFrame | None:
        """The same table for the tuning cases; None if the study has none."""
        path = self.folder / TUNING
        return read_table(path) if path.is_file() else None

    @cached_property
    def nested(self) -> dict[int, pd.DataFrame] | None:
        """The same table for every depth of a nested network, on tuning or training cases; None for other networks."""
        return nested_tables(self.folder)

    @cached_property
    def history(self) -> pd.DataFrame:
        """Loss table: step, loss and, with tuning cases, tuning_loss."""
        return read_table(self.folder / "history.csv")

    @cached_property
    def cost(self) -> dict[str, float | str | None]:
        """Cost: train_seconds, milliseconds_per_slice, peak_memory_mib, device."""
        return parse_json(self.folder / "cost.json")


def initial_network(trial: Trial) -> Network:
    """Build the trial's untrained network: the full network with its initial weights, truncated."""
    torch.manual_seed(trial.seed)
    full = build(trial.network)
    return full if trial.blocks == full.depth else full.truncated(trial.blocks)


def finished(trial: Trial, out: Path) -> Result | None:
    """Return the trial's result in the study's folder `out`; None if the trial is not finished."""
    folder = out / "trials" / trial.key
    return Result(trial, folder) if folder.is_dir() else None


def run_trial(
    trial: Trial,
    data: PreparedData,
    out: Path,
    reporter: Reporter,
    logger: str | None = None,
    coordinator: Coordinator | None = None,
) -> Result:
    """Train and evaluate a trial, or return its stored result. The trial's folder is written only when it is complete.

    Until then, `unfinished/` holds the state from which a killed training resumes. With a `coordinator`, several
    machines share the training.
    """
    if (result := finished(trial, out)) is not None:
        reporter.say(f"  {trial_title(trial)}: already finished, kept")
        return result
    state = state_file(trial, out)
    heartbeat = Heartbeat(state.parent, trial_title(trial))
    slices = SliceDataset(data.cache, trial.split.train, empty_slices=trial.empty_slices)
    tuning = SliceDataset(data.cache, trial.split.tuning, empty_slices=trial.empty_slices)
    hardware = Hardware.of(trial.training)
    shared = coordinator.training(announcement(trial, data.cache), state) if coordinator else nullcontext()
    with (
        reporter.stage(f"train {trial_title(trial)}", total_steps(trial.training, len(slices))) as stage,
        shared as here,
    ):
        network, training = train_trial(
            trial,
            slices,
            out,
            stage=stage,
            watch=heartbeat,
            logger=make_logger(logger, out / "logs", trial.key),
            tuning=tuning,
            rendezvous=here,
        )
    replace(heartbeat, doing="evaluate")()
    with reporter.stage(f"evaluate {trial_title(trial)}", len(trial.split.validation)) as stage:
        cases = evaluate_cases(fold_for_inference(network), data, trial.split.validation, hardware, stage)
    folder = out / "trials" / trial.key
    with replacing(folder) as part:
        part.mkdir()
        write_model(network, part)
        write_json(part / RECIPE, Recipe(data.config, data.cases.classes).dump())
        write_json(part / TRIAL, trial.model_dump(mode="json"))
        write_table(part / "cases.csv", cases)
        write_table(part / "history.csv", history_table(training))
        (cost,) = measure_costs([network], data.cache.case(trial.split.validation[0]).images, hardware)
        write_json(part / "cost.json", {"train_seconds": round(training.seconds, 2), **cost})
    shutil.rmtree(state.parent, ignore_errors=True)
    return Result(trial, folder)


def evaluate_tuning(result: Result, data: PreparedData, reporter: Reporter) -> None:
    """Write tuning.csv, the accuracy of a trial on its tuning cases, unless it is there or there are none."""
    cases = result.trial.split.tuning
    if not cases or (result.folder / TUNING).is_file():
        return
    with reporter.stage(f"evaluate {trial_title(result.trial)} on tuning cases", len(cases)) as stage:
        network = fold_for_inference(result.network())
        found = evaluate_cases(network, data, cases, Hardware.of(result.trial.training), stage)
    write_table(result.folder / TUNING, found)


def evaluate_nested(result: Result, data: PreparedData, reporter: Reporter) -> None:
    """Write nested.csv, the accuracy of a nested network at every depth on its tuning cases, unless it is there.

    With too few tuning cases, training cases take their place.
    """
    if (result.folder / NESTED).is_file():
        return
    network, trial = fold_for_inference(result.network()), result.trial
    cases = exchange_cases(trial.split.train, trial.split.tuning)
    assert network.vit is not None
    tables = []
    with reporter.stage(f"evaluate every depth of {trial_title(trial)}", network.depth * len(cases)) as stage:
        for depth in range(1, network.depth + 1):
            network.vit.leave_after = depth
            found = evaluate_cases(network, data, cases, Hardware.of(trial.training), stage)
            tables.append(found.assign(depth=depth))
    write_table(result.folder / NESTED, pd.concat(tables, ignore_index=True))


def exchange_cases(train: tuple[str, ...], tuning: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cases on which a depth is proposed: the tuning cases, or training cases if there are fewer than 8."""
    return tuning if len(tuning) >= VERDICT_CASES else tuple(evenly_spaced(train, EXCHANGE_CASES))


def state_file(trial: Trial, out: Path) -> Path:
    """Return the file that holds the state of a training until the trial is finished."""
    return out / "unfinished" / trial.key / "state.ckpt"


def train_trial(trial: Trial, slices: SliceDataset, out: Path, **options: Any) -> tuple[Network, Training]:
    """Train the trial's network from its start weights (`Trial.start`); `options` go to `train_network`."""
    options["state"] = state_file(trial, out)
    if trial.teacher is None:
        network = initial_network(trial)
        return network, train_network(network, slices, trial.training, trial.seed, **options)
    full = load_model(out / "trials" / trial.teacher)
    network = full.truncated(trial.blocks)
    teacher = full if trial.start == "distil" else None
    return network, recover(network, slices, trial.training, teacher=teacher, seed=trial.seed, **options)


def announcement(trial: Trial, cache: SliceCache) -> dict[str, Any]:
    """Return what other machines need to join a training; `vitrim.studies.participant` reads it."""
    return {"trial": trial.model_dump(mode="json"), "cache": cache.names(trial.split.train)}


def trial_title(trial: Trial) -> str:
    """Return the name of a trial for messages."""
    name = f"{trial.network.name}, {trial.blocks} block{'s' if trial.blocks != 1 else ''}"
    name += ", nested" if trial.training.nested else ""
    return name + (f", seed {trial.seed}" if trial.seed else "") + (f", fold {trial.fold}" if trial.fold else "")
