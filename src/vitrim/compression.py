"""`vitrim compress`: a smaller network from a trained one, with what that costs and saves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from vitrim.account import account, cost_of, lines, markdown
from vitrim.attention.decision import Decision
from vitrim.beside import Beside, cases_for, prepared_slices, read_beside
from vitrim.choose import Choice, Method, choose_blocks
from vitrim.config import AttentionConfig, DataConfig, TrainConfig
from vitrim.data.slices import SliceDataset
from vitrim.errors import InputError
from vitrim.evaluate import EvaluationData, evaluate
from vitrim.files import replacing, write_json, write_text
from vitrim.look import CaseImages, look_at, spread
from vitrim.models.checkpoint import load_model, write_model
from vitrim.models.factory import build
from vitrim.models.network import Network
from vitrim.progress import Reporter, silent
from vitrim.recovery import recover
from vitrim.study.look import case_images, shown_slice
from vitrim.study.statistics import average_dice
from vitrim.study.tables import write_table
from vitrim.tolerance import Tolerated, smallest_depth
from vitrim.train import Training, resolve, total_steps
from vitrim.tuning import divide

Recovery = Literal["none", "finetune", "distil"]
BESIDE = ("preparation.json", "trial.json")
"""What may lie beside a checkpoint and holds for its truncated form too: how its data were prepared and split."""
LOOK = AttentionConfig(cases=40, slices=8)


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    depth: int | None = None
    """Blocks to keep; None to have it decided."""
    decision: Path | None = None
    """A decision.json that says how many."""
    tolerance: float | None = None
    """Decide by accuracy: the share of Dice that may be lost. Otherwise by attention."""
    method: Method = "first"
    """Which blocks are kept (`vitrim.choose`)."""
    recovery: Recovery = "none"
    epochs: int | None = None
    """Of recovery; by default as long as the checkpoint's own training."""
    steps: int | None = None
    seed: int = 0

    @property
    def needs_data(self) -> bool:
        """Whether any of this is measured or learned on cases."""
        given = self.depth is not None or self.decision is not None
        return not given or self.recovery != "none" or self.method in ("influence", "effect")


@dataclass
class Work:
    """A network on its way to a smaller one, with the data for it."""

    network: Network
    request: Request
    reporter: Reporter
    training: TrainConfig | None
    data: EvaluationData | None = None
    train: tuple[str, ...] = ()
    tuning: tuple[str, ...] = ()
    made: dict[int, tuple[Network, Choice, Training | None]] = field(default_factory=dict)

    def smaller(self, depth: int) -> tuple[Network, Choice, Training | None]:
        """The network with `depth` blocks, recovered if that is asked for; made once."""
        if depth not in self.made:
            choice = choose_blocks(
                self.network, depth, self.request.method, images=self._images(), dice=self._dice, seed=self.request.seed
            )
            small = self.network.keeping(choice.kept)
            self.made[depth] = (small, choice, self._recovered(small, choice))
        return self.made[depth]

    def cases(self, network: nn.Module, title: str) -> pd.DataFrame:
        """Per-case table of a network on the tuning cases."""
        assert self.data is not None
        with self.reporter.stage(f"evaluate {title}", len(self.tuning)) as stage:
            return evaluate(network, self.data, self.tuning, self.running, stage)

    def example(self) -> np.ndarray:
        """Slices (16, C, H, W) to measure speed on; noise where there are no cases."""
        if self.data is None:
            return np.random.default_rng(0).normal(size=(16, *self.network.example.shape[1:])).astype(np.float32)
        images = self.data.cache.case(self.train[0]).images
        return np.array(images[np.arange(16) % len(images)])

    @property
    def running(self) -> TrainConfig:
        return resolve(self.training or TrainConfig(steps=1))

    def _recovered(self, small: Network, choice: Choice) -> Training | None:
        if self.request.recovery == "none" or not small.depth < self.network.depth:
            return None
        assert self.data is not None
        assert self.training is not None
        slices = SliceDataset(self.data.cache, self.train, empty_slices=self.data.config.empty_slices)
        config = resolve(self.training)
        distil = self.request.recovery == "distil"
        title = f"{'distil' if distil else 'train on'}, {small.depth} blocks"
        with self.reporter.stage(title, total_steps(config, len(slices))) as stage:
            return recover(
                small,
                slices,
                config,
                teacher=self.network if distil else None,
                kept=choice.kept,
                seed=self.request.seed,
                stage=stage,
            )

    def _images(self) -> Iterator[CaseImages] | None:
        if self.data is None:
            return None
        cases = spread(list(self.train), LOOK.cases)
        return case_images(cases, self.data, LOOK.slices, silent(len(cases)))

    def _dice(self, network: nn.Module) -> float:
        table = self.cases(network, "without one block")
        return float(average_dice(table.pivot(index="case", columns="class", values="dice").to_numpy()))


def compress_checkpoint(
    checkpoint: Path,
    out: Path,
    request: Request,
    reporter: Reporter,
    data: Path | None = None,
    layout: DataConfig | None = None,
) -> list[str]:
    """Make a smaller network of the one in the folder `checkpoint`, as `request` says, in the new folder `out`.

    With cases in `data` the depth can be decided, by attention or by accuracy, and the network trained on. The cases
    that the checkpoint's study held out never take part. Accuracy is measured on those that it kept for tuning, where
    `data` holds 5 of these; or else on 5 or more that the checkpoint has not seen; or else on a fifth of its training
    cases, which are then left out of recovery.

    Returns what was done, and what it costs and saves (equations 4 and 5), as lines; compression.json and
    compression.md say it all. InputError where the request cannot be met; `out` appears whole or not at all.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder with --out")
    network = load_model(checkpoint)
    beside = read_beside(checkpoint)
    if request.needs_data and data is None:
        raise InputError("deciding a depth or training on takes cases: give a data set with --data")
    work = Work(network, request, reporter, _training(beside, request))
    with ExitStack() as stack, replacing(out) as unfinished:
        unfinished.mkdir()
        if data is not None:
            config, cases = cases_for(checkpoint, network, beside, data, layout)
            by_accuracy = request.tolerance is not None or request.method == "effect"
            work.train, work.tuning = divide(cases, beside.split, by_accuracy, request.seed, reporter)
            ids = (*work.train, *work.tuning)
            work.data = stack.enter_context(prepared_slices(config, cases, ids, out, reporter))
        depth, decided, tolerated = _depth(work, checkpoint, unfinished)
        small, choice, training = work.smaller(depth)
        write_model(small, unfinished)
        for name in BESIDE:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, unfinished / name)
        if training is not None:
            history = pd.DataFrame({"step": range(1, len(training.losses) + 1), "loss": training.losses})
            write_table(unfinished / "recovery.csv", history)
        images, running = work.example(), work.running
        told = account(
            network.config.name,
            cost_of(network, images, running),
            cost_of(small, images, running),
            choice,
            request.recovery,
            training,
            decided,
            tolerated,
        )
        write_json(unfinished / "compression.json", {"checkpoint": str(checkpoint), **told})
        write_text(unfinished / "compression.md", markdown(told, network))
    return [*lines(told, decided, tolerated), f"wrote {out}"]


def _training(beside: Beside, request: Request) -> TrainConfig | None:
    here = {"device": "auto", "devices": 1, "nodes": 1}  # the full network may come from a larger machine
    if request.recovery != "none" and not (request.epochs is None and request.steps is None):
        base = beside.training or TrainConfig(steps=1)
        return base.model_copy(update={"epochs": request.epochs, "steps": request.steps, **here})
    if beside.training is not None:
        return beside.training.model_copy(update=here)
    if request.recovery == "none":
        return None
    raise InputError("it is not known how this network was trained: say how long to train on, with --epochs")


def _depth(work: Work, checkpoint: Path, folder: Path) -> tuple[int, Decision | None, Tolerated | None]:
    """How many blocks to keep, and the choices by attention and by accuracy as far as they were made."""
    request, network = work.request, work.network
    if request.decision is not None:
        decided = Decision.load(request.decision)
        if len(decided.blocks) != network.depth:
            raise InputError(
                f"{request.decision} decides on a network of {len(decided.blocks)} blocks, "
                f"{checkpoint} has {network.depth}"
            )
        return decided.depth, decided, None
    if request.depth is not None:
        return request.depth, None, None
    decided = _by_attention(work, folder / "attention")
    if request.tolerance is None:
        return decided.depth, decided, None
    full = work.cases(network, f"the full network, {network.depth} blocks")
    tolerated = smallest_depth(
        full,
        lambda depth: work.cases(work.smaller(depth)[0], f"{depth} blocks"),
        network.shallowest,
        network.depth,
        request.tolerance,
    )
    return tolerated.depth, decided, tolerated


def _by_attention(work: Work, folder: Path) -> Decision:
    assert work.data is not None
    data, seed = work.data, work.request.seed
    cases = spread(list(work.train), LOOK.cases)
    torch.manual_seed(seed)
    untrained = build(work.network.config.model_copy(update={"pretrained": False})).eval()
    with work.reporter.stage("attention", 2 * len(cases)) as stage:
        images = lambda: case_images(cases, data, LOOK.slices, stage)  # noqa: E731
        return look_at(work.network, untrained, images, shown_slice(cases[0], data), folder, LOOK, seed)
