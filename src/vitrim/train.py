"""Training a network on prepared slices, with Lightning."""

from __future__ import annotations

import logging
import math
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vitrim.config import TrainConfig
from vitrim.data.batches import Batches, Shuffled
from vitrim.data.slices import collate_slices
from vitrim.devices import Meeting, devices
from vitrim.errors import InputError
from vitrim.precision import cpu_has_bf16
from vitrim.progress import Moment, Stage, Watch
from vitrim.resume import KeepState, Progress, SeedSteps, load_state

WARM_UP = 0.05
"""Share of the steps over which `schedule: cosine` rises."""


@dataclass(frozen=True)
class Training:
    """A finished training: `losses` holds one value a step."""

    losses: list[float]
    seconds: float


def resolve(config: TrainConfig) -> TrainConfig:
    """Replace every `auto` by what this machine has, so that the configuration says what will really run."""
    gpu = torch.cuda.is_available()
    if config.device == "gpu" and not gpu:
        raise InputError("training.device is gpu, but this machine has none that torch can use; set it to cpu or auto")
    device = ("gpu" if gpu else "cpu") if config.device == "auto" else config.device
    precision = config.precision
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device == "gpu" else cpu_has_bf16()
        precision = "bf16-mixed" if fast else "32-true"
    return config.model_copy(update={"device": device, "precision": precision})


ExtraLoss = Callable[[Tensor, Tensor], Tensor]
"""A term beside the loss: of images (B, C, H, W) and the network's logits for them (B, K, H, W)."""


def train(
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
    place: Meeting | None = None,
) -> Training:
    """Train `network` in place on `data`, items {"image": (C, H, W), "label": (H, W)}, ending on the CPU in eval mode.

    Loss: the mean of Dice loss over the batch and cross-entropy; AdamW (paper, 3.6). Everything random follows from
    `seed`. InputError if the loss is not finite, or if a batch cannot be filled or shared out.

    Args:
        stage: shows progress; on several devices it cannot.
        state: file that is written at the end of every epoch; where it is there already, the training goes on with
            the epoch after it and ends as if it had never stopped. It is left for the caller to remove.
        watch: is told after every step where the training is; on several devices, in another process.
        logger: one of Lightning's; it is told the loss and the learning rate.
        extra_loss: a term that is added to the loss.
        place: where the machines meet that share the training; by default the environment says it. Each of them calls
            this function, with the same `state` on a file system that they share. Without one, `losses` is empty on
            all but node 0.
    """
    slices = len(data)  # type: ignore[arg-type]
    check_batch(config, slices)
    several = config.processes > 1
    if several and state is None:
        with tempfile.TemporaryDirectory() as folder:  # the other processes hand their losses back by this file
            return train(
                network, data, config, seed,
                state=Path(folder) / "state", logger=logger, extra_loss=extra_loss, place=place,
            )  # fmt: skip
    _quiet()
    pl.seed_everything(seed, workers=True, verbose=False)
    fitted = SegmentationTask(network.train(), config, total_steps(config, slices), extra_loss)
    before = load_state(state)
    done = len(before.losses) if before else 0
    callbacks: list[pl.Callback] = [SeedSteps(seed)]
    if state is not None:
        callbacks.append(KeepState(state))
    if stage is not None and not several:
        callbacks.append(_ShowProgress(stage, done))
    if watch is not None:
        callbacks.append(_Tell(watch))
    trainer = pl.Trainer(
        accelerator=config.device,
        precision=config.precision,
        max_steps=fitted.steps - done,
        max_epochs=-1,
        deterministic=True if config.device == "cpu" else "warn",
        logger=logger or False,
        log_every_n_steps=max(1, min(50, fitted.steps // 100)),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # `Batches` shares out the slices
        callbacks=callbacks,
        **devices(config, place),
    )
    begin = time.perf_counter()
    batches = _Batches(data, config, seed, done)
    with _interruptible(trainer):
        trainer.fit(fitted, datamodule=batches, ckpt_path=state if before else None, weights_only=True)
    seconds = time.perf_counter() - begin + (before or Progress()).seconds
    network.eval().cpu()
    after = load_state(state) if several else None
    return Training(after.losses if after else fitted.losses, seconds)


def check_batch(config: TrainConfig, slices: int) -> None:
    """Refuse (InputError) a batch that cannot be filled, or not be shared out evenly among the devices."""
    if slices < config.batch_size:
        raise InputError(f"{slices} training slices do not fill one batch of {config.batch_size}; lower batch_size")
    check_shares(config)


def check_shares(config: TrainConfig) -> None:
    """Refuse (InputError) a batch that cannot be shared out evenly among the devices of all machines."""
    if config.batch_size % config.processes:
        where = f" of {config.nodes} nodes" if config.nodes > 1 else ""
        raise InputError(
            f"training.batch_size {config.batch_size} cannot be shared out evenly among {config.processes} devices"
            f"{where}; make it a multiple of {config.processes}"
        )


def total_steps(config: TrainConfig, slices: int) -> int:
    """Optimiser steps of a training on this many slices (the last, incomplete batch of an epoch is dropped)."""
    return config.steps or (config.epochs or 0) * (slices // config.batch_size)


class SegmentationTask(pl.LightningModule):
    """What Lightning needs to know: loss, optimiser, learning rate."""

    def __init__(
        self, network: nn.Module, config: TrainConfig, steps: int, extra_loss: ExtraLoss | None = None
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.config = config
        self.steps = steps
        # Dice over the batch, as in the public TransUNet code: a class absent from one slice gives no spurious loss.
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, lambda_dice=0.5, lambda_ce=0.5)
        self.extra_loss = extra_loss
        self.losses: list[float] = []

    def setup(self, stage: str) -> None:
        _quiet()  # once more, in every process of several

    def loss_of(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of a batch, "image" (B, C, H, W) and "label" (B, H, W), to be minimised.

        On several devices, each with its part of the batch, it is the loss of the whole batch on every one of them.
        """
        image = batch["image"].contiguous(memory_format=torch.channels_last)  # (B, C, H, W)
        own, label = self.network(image), batch["label"]  # (B, K, H, W), (B, H, W)
        if not isinstance(own, Tensor) or own.ndim != 4:
            raise InputError(f"{type(self.network).__name__} does not return logits (batch, classes, height, width)")
        own = logits = own.float()
        if self._trainer is not None and self.trainer.world_size > 1:
            # Dice is of the whole batch, so the parts come together before it; DDP then averages equal losses.
            logits = self.all_gather(own, sync_grads=True).flatten(0, 1)
            label = self.all_gather(label).flatten(0, 1)
        loss = self.loss(logits, label[:, None])
        return loss if self.extra_loss is None else loss + self.extra_loss(image, own)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = self.loss_of(batch)
        value = float(loss.detach())
        if self._trainer is not None and self.logger is not None:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict({"loss": value, "learning_rate": rate, "step": float(len(self.losses) + 1)})
        if not math.isfinite(value):
            raise InputError(
                f"the loss became {value} at step {len(self.losses) + 1}: "
                f"lower training.learning_rate (now {self.config.learning_rate}) or set precision to 32-true"
            )
        self.losses.append(value)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        if self.config.schedule == "constant":
            return optimizer
        warm_up = max(1, round(WARM_UP * self.steps))

        def factor(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, self.steps - warm_up)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _Batches(pl.LightningDataModule):
    """The batches of the process that asks for them, from the epoch on whose first step is `step`."""

    def __init__(self, data: Dataset[Any], config: TrainConfig, seed: int, step: int) -> None:
        super().__init__()
        self.data, self.config, self.seed, self.step = data, config, seed, step

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        slices = len(self.data)  # type: ignore[arg-type]
        order = Shuffled(slices, self.seed, self.step // (slices // self.config.batch_size))
        return DataLoader(
            self.data,
            batch_sampler=Batches(order, self.config.batch_size, self.trainer.global_rank, self.trainer.world_size),
            num_workers=self.config.workers,
            collate_fn=collate_slices,
            persistent_workers=self.config.workers > 0,
            pin_memory=self.config.device == "gpu",
        )


class _ShowProgress(pl.Callback):
    def __init__(self, stage: Stage, done: int) -> None:
        self.stage = stage
        stage.advance(done)

    def on_train_batch_end(self, trainer: pl.Trainer, task: SegmentationTask, *_: Any) -> None:
        self.stage.advance(note=_moment(trainer, task).sentence())


class _Tell(pl.Callback):
    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: pl.Trainer, task: SegmentationTask, *_: Any) -> None:
        if trainer.is_global_zero:
            self.watch(_moment(trainer, task))


def _moment(trainer: pl.Trainer, task: SegmentationTask) -> Moment:
    step, batches = len(task.losses), int(trainer.num_training_batches)
    return Moment(step, task.steps, (step - 1) // batches + 1, math.ceil(task.steps / batches), task.losses[-1])


@contextmanager
def _interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """An interrupt from the keyboard stays one; Lightning makes it the end of the program, deaf to the next."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    except SystemExit as stop:
        if trainer.interrupted:
            raise KeyboardInterrupt from stop
        raise
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)


def _quiet() -> None:
    """Lightning's advice (workers, tips, devices) is not for the user of a study."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.nn.* is deprecated")  # what follows it is private
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
