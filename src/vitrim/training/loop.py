"""The training loop: batch, step, log, state, in order."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from vitrim.config.schema import TrainConfig
from vitrim.data.sampling import Batches, Shuffled, mixed
from vitrim.errors import ConfigurationError, DataError, InputError
from vitrim.hardware import deterministic, float32_products, resolved
from vitrim.progress import Stage, TrainingProgress, Watch
from vitrim.training.augmentation import Augmented, check_augmentation
from vitrim.training.distributed import Rendezvous, make_fabric, quiet, share_batch_norms
from vitrim.training.late_values import LateValues
from vitrim.training.readers import check_shared_memory, slice_loader
from vitrim.training.resume import StateWriter, TrainingState, load_state
from vitrim.training.step import (
    ExtraLoss,
    OptimizerStep,
    SegmentationLoss,
    can_be_one_graph,
    load_optimizer,
    make_optimizer,
)
from vitrim.training.tuning_loss import TuningLoss, copied, is_best

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import Logger

WARM_UP = 0.05
"""Share of the steps in which the learning rate of `schedule: cosine` rises."""

NESTED = 7
"""Part of the seed from which the blocks of nested training are drawn."""


@dataclass(frozen=True)
class Training:
    """A finished training; `losses` holds one value per step."""

    losses: list[float]
    seconds: float
    tuning_losses: dict[int, float] = field(default_factory=dict)
    """Loss on tuning cases after some of the steps, counted from 1."""


def train_network(
    network: nn.Module,
    data: Dataset[Any],
    config: TrainConfig,
    seed: int,
    stage: Stage | None = None,
    *,
    state: Path | None = None,
    watch: Watch | None = None,
    logger: Logger | None = None,
    extra_loss: ExtraLoss | None = None,
    tuning: Dataset[Any] | None = None,
    rendezvous: Rendezvous | None = None,
) -> Training:
    """Train `network` in place on `data`, items {"image": (C, H, W), "label": (H, W)}.

    The network ends on the CPU, in eval mode.

    Loss: the mean of Dice loss over the batch and cross-entropy; optimiser: AdamW (paper, 3.6). `seed` decides
    everything random.

    Args:
        stage: shows the progress; not used if several devices share the training.
        state: file that is written about every minute and at the end. If it exists, the training resumes after its last
            step and ends with the same numbers as an uninterrupted training. The caller removes the file.
        watch: called once for every step; on a GPU one step late, and if several devices share the training, in another
            process.
        logger: one of Lightning's loggers. It gets the loss and the learning rate.
        extra_loss: a term that is added to the loss.
        tuning: slices like those of `data` that are not trained on. Their loss is measured now and then
            (`vitrim.training.tuning_loss`); `checkpoint: best` ends with the weights that had the lowest.
        rendezvous: where the machines that share the training meet; by default read from the environment. Each machine
            calls this function with the same `state` on a shared file system. Only node 0 is sure to get the losses
            and the trained network; on other machines the result can be empty and the network unchanged.

    Raises:
        ConfigurationError: if a batch cannot be divided evenly among the devices, if a parameter of `augment` is wrong,
            if the slices read ahead do not fit into shared memory, or if `checkpoint: best` has no `tuning` slices.
        DataError: if there are too few slices for a batch.
        InputError: if the loss is not finite, the network does not return logits, or a batch does not fit into the
            GPU's memory.
    """
    config = resolved(config)
    check_batch(config, len(data))  # type: ignore[arg-type]
    check_shared_memory(config, data)
    check_augmentation(config.augment)
    if config.checkpoint == "best" and not tuning and (rendezvous is None or rendezvous.node == 0):
        raise ConfigurationError("training.checkpoint: best needs tuning cases; without them, set it to last")
    fabric = make_fabric(config, rendezvous)
    if config.processes == 1:
        found = _train(fabric, network, data, config, seed, state, extra_loss, tuning, logger, watch, stage)
        network.eval().cpu()
        return Training(*found)
    with tempfile.TemporaryDirectory() as folder:  # the other processes return the weights in a file
        path = state or Path(folder) / "state"
        fabric.launch(_train, network, data, config, seed, path, extra_loss, tuning, logger, watch, None)
        end = load_state(path) if rendezvous is None or rendezvous.node == 0 else None
        if end is None:
            return Training([], 0.0)
        network.load_state_dict(end.best or end.network)
        network.eval()
        return Training(end.losses, end.seconds, end.tuning_losses)


def _train(
    fabric: Fabric,
    network: nn.Module,
    data: Dataset[Any],
    config: TrainConfig,
    seed: int,
    path: Path | None,
    extra_loss: ExtraLoss | None,
    tuning: Dataset[Any] | None,
    logger: Logger | None,
    watch: Watch | None,
    stage: Stage | None,
) -> tuple[list[float], float, dict[int, float]]:
    """Run the loop in one process; every process calls it. Return the parts of a `Training`."""
    quiet()
    begin = time.perf_counter()
    fabric.seed_everything(seed, workers=True, verbose=False)
    network = network.to(memory_format=torch.channels_last).train()
    if fabric.world_size > 1:
        network = share_batch_norms(network, config.device)
    optimizer = make_optimizer(network, config, fabric.device)
    model, optimizer = fabric.setup(torch.compile(network) if config.compile else network, optimizer)
    one_graph = can_be_one_graph(network, config) and extra_loss is None
    do_step = OptimizerStep(fabric, model, optimizer, SegmentationLoss(fabric, extra_loss), one_graph)

    slices = len(data)  # type: ignore[arg-type]
    steps, batches = total_steps(config, slices), slices // config.batch_size
    epochs = math.ceil(steps / batches)
    order = Shuffled(slices, seed)
    augmented = config.augment not in ("none", [])
    sampler = Batches(order, config.batch_size, fabric.global_rank, fabric.world_size, numbered=augmented)
    loader = slice_loader(Augmented(data, config.augment, seed) if augmented else data, sampler, config)

    state = load_state(path) or TrainingState()
    if state.losses:
        network.load_state_dict(state.network)
        load_optimizer(optimizer, state.optimizer)
        fabric.strategy.precision.load_state_dict(state.scaler)
        if stage is not None:
            stage.advance(len(state.losses))
    losses, before = list(state.losses), state.seconds
    tuning_losses, best = dict(state.tuning_losses), state.best
    aside = TuningLoss(fabric, tuning, config, steps) if tuning and fabric.is_global_zero else None
    log_every = max(1, min(50, steps // 100))

    def note(values: list[float]) -> None:
        for value in values:
            step = len(losses)
            if not math.isfinite(value):
                raise InputError(
                    f"the loss became {value} at step {step + 1}: lower training.learning_rate "
                    f"(now {config.learning_rate}) or set precision to 32-true"
                )
            losses.append(value)
            progress = TrainingProgress(step + 1, steps, step // batches + 1, epochs, value)
            if stage is not None:
                stage.advance(note=progress.sentence())
            if watch is not None and fabric.is_global_zero:
                watch(progress)
            if logger is not None and (step + 1) % log_every == 0:
                rate = learning_rate(config, step, steps)
                logger.log_metrics({"loss": value, "learning_rate": rate}, step=step + 1)

    writer = StateWriter(path if fabric.is_global_zero else None)
    late = LateValues(config.device == "gpu")
    step = len(losses)
    with (
        deterministic(),
        float32_products(config.precision),
        do_step.stream(),
    ):
        while step < steps:
            order.set_epoch(step // batches)
            sampler.first = step % batches
            for batch in loader:
                if step == steps:
                    break
                torch.manual_seed(mixed(seed, step, fabric.global_rank))
                if config.nested:
                    _leave_early(network, step, mixed(seed, step, NESTED))
                loss = do_step(batch, learning_rate(config, step, steps))
                step += 1
                note(late.add(loss))
                if aside is not None and aside.due(step):
                    if config.nested:
                        _leave_early(network, 0, 0)
                    tuning_losses[step] = aside.measure(network)
                    if config.checkpoint == "best" and is_best(tuning_losses):
                        best = copied(network.state_dict())
                    if logger is not None:
                        logger.log_metrics({"tuning_loss": tuning_losses[step]}, step=step)
                if writer.due(last=step == steps):
                    note(late.rest())
                    seconds = before + time.perf_counter() - begin
                    scaler = fabric.strategy.precision.state_dict()
                    weights, moments = network.state_dict(), optimizer.state_dict()
                    writer.write(TrainingState(weights, moments, scaler, losses, seconds, tuning_losses, best))
        note(late.rest())
    optimizer.zero_grad()
    if best:
        network.load_state_dict(best)
    if config.nested:
        _leave_early(network, 0, 0)
    if logger is not None:
        logger.finalize("success")
    return losses, before + time.perf_counter() - begin, tuning_losses


def _leave_early(network: nn.Module, step: int, seed: int) -> None:
    """In every second step (1, 3, …), let the tokens leave after a random block; otherwise after the last one."""
    vit = getattr(network, "vit", None)
    if vit is None or not len(vit.blocks):
        raise InputError("nested training needs one of vitrim's own networks, with transformer blocks")
    draw = torch.Generator().manual_seed(seed)
    blocks = len(vit.blocks)
    vit.leave_after = int(torch.randint(1, blocks + 1, (), generator=draw)) if step % 2 else None


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step (from 0): constant, or a linear rise and then half a cosine down to zero."""
    if config.schedule == "constant":
        return config.learning_rate
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return config.learning_rate * ((step + 1) / warm_up)
    return config.learning_rate * (0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))))


def total_steps(config: TrainConfig, slices: int) -> int:
    """Return the optimiser steps of a training on this many slices; an incomplete last batch of an epoch is dropped."""
    return config.steps or (config.epochs or 0) * (slices // config.batch_size)


def check_batch(config: TrainConfig, slices: int) -> None:
    """Check the batch. Raises DataError if the slices do not fill it, ConfigurationError as `check_shares` does."""
    if slices < config.batch_size:
        raise DataError(f"{slices} training slices do not fill one batch of {config.batch_size}; lower batch_size")
    check_shares(config)


def check_shares(config: TrainConfig) -> None:
    """Check that a batch divides evenly among the devices of all machines. Raises ConfigurationError if not."""
    if config.batch_size % config.processes:
        where = f" of {config.nodes} nodes" if config.nodes > 1 else ""
        raise ConfigurationError(
            f"training.batch_size {config.batch_size} cannot be divided evenly among {config.processes} devices"
            f"{where}; make it a multiple of {config.processes}"
        )


def history_table(training: Training) -> pd.DataFrame:
    """Return the loss of every step: columns step (from 1), loss and, if it was measured, tuning_loss."""
    table = pd.DataFrame({"step": range(1, len(training.losses) + 1), "loss": training.losses})
    return table.assign(tuning_loss=table["step"].map(training.tuning_losses)) if training.tuning_losses else table
