"""One trained and evaluated network: a pure function of its configuration, kept under that configuration's hash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

import vitrim
from vitrim.config import NetworkConfig, Strict, TrainConfig
from vitrim.cost import measure_cost
from vitrim.data.slices import SliceDataset
from vitrim.data.split import Split
from vitrim.evaluate import EvaluationData, evaluate
from vitrim.files import replacing, write_json
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.factory import build
from vitrim.models.network import Network
from vitrim.progress import Reporter
from vitrim.study.folder import digest
from vitrim.train import total_steps, train


class Trial(Strict):
    """Everything that decides the outcome of one training."""

    network: NetworkConfig
    """The full network; it is truncated to `blocks` before the training starts."""
    blocks: int
    training: TrainConfig
    seed: int
    data: str
    """Fingerprint of the prepared data."""
    split: Split
    empty_slices: bool
    version: str = vitrim.__version__

    @cached_property
    def key(self) -> str:
        """Name of the trial's folder."""
        return f"{self.network.name}-{self.blocks}-{digest(self.model_dump(mode='json'))}"


@dataclass(frozen=True)
class Result:
    """What a finished trial left in its folder."""

    trial: Trial
    folder: Path

    def network(self) -> Network:
        """The trained network, in eval mode on the CPU."""
        return load_model(self.folder)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Columns case, class, dice, hd95, reference_voxels, predicted_voxels."""
        return pd.read_csv(
            self.folder / "cases.csv", dtype={"case": str, "class": str}, keep_default_na=False, na_values=[""]
        )

    @cached_property
    def history(self) -> pd.DataFrame:
        """Columns step, loss."""
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def cost(self) -> dict[str, float | str | None]:
        """train_seconds, milliseconds_per_slice, peak_memory_mib, device."""
        return json.loads((self.folder / "cost.json").read_text(encoding="utf-8"))


def initial(trial: Trial) -> Network:
    """Build the trial's network as it is before training: the full network's initial weights, truncated."""
    torch.manual_seed(trial.seed)
    full = build(trial.network)
    return full if trial.blocks == full.depth else full.truncated(trial.blocks)


def run_trial(trial: Trial, data: EvaluationData, trials: Path, reporter: Reporter) -> Result:
    """Train and evaluate, or return what is there; the folder appears whole, once everything in it is written."""
    folder = trials / trial.key
    if folder.is_dir():
        reporter.say(f"  {title(trial)}: done before, kept")
        return Result(trial, folder)
    slices = SliceDataset(data.cache, trial.split.train, empty_slices=trial.empty_slices)
    network = initial(trial)
    with reporter.stage(f"train {title(trial)}", total_steps(trial.training, len(slices))) as stage:
        training = train(network, slices, trial.training, trial.seed, stage)
    with reporter.stage(f"evaluate {title(trial)}", len(trial.split.validation)) as stage:
        cases = evaluate(network, data, trial.split.validation, trial.training, stage)
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        save_model(network, unfinished)
        write_json(
            unfinished / "preparation.json",
            {
                "data": data.config.model_dump(mode="json", exclude={"phantom", "split_file"}),
                "classes": {str(value): name for value, name in data.cases.classes.items()},
            },
        )
        write_json(unfinished / "trial.json", trial.model_dump(mode="json"))
        cases.to_csv(unfinished / "cases.csv", index=False, float_format="%.6f", lineterminator="\n")
        history = pd.DataFrame({"step": range(1, len(training.losses) + 1), "loss": training.losses})
        history.to_csv(unfinished / "history.csv", index=False, float_format="%.6f", lineterminator="\n")
        cost = measure_cost(network, data.cache.case(trial.split.validation[0]).images, trial.training)
        write_json(unfinished / "cost.json", {"train_seconds": round(training.seconds, 2), **cost})
    return Result(trial, folder)


def title(trial: Trial) -> str:
    """How a trial is called in front of people."""
    return f"{trial.network.name}, {trial.blocks} block{'s' if trial.blocks != 1 else ''}"
