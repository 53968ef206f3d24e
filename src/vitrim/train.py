"""Training a network on prepared slices, with Lightning."""

from __future__ import annotations

import logging
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vitrim.config import TrainConfig
from vitrim.data.slices import collate_slices
from vitrim.errors import InputError
from vitrim.progress import Stage

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
        fast = torch.cuda.is_bf16_supported() if device == "gpu" else _cpu_has_bf16()
        precision = "bf16-mixed" if fast else "32-true"
    return config.model_copy(update={"device": device, "precision": precision})


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware (AVX512-BF16 or AMX); emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def train(
    network: nn.Module, data: Dataset[Any], config: TrainConfig, seed: int, stage: Stage | None = None
) -> Training:
    """Train `network` in place on `data`, items {"image": (C, H, W), "label": (H, W)}, ending on the CPU in eval mode.

    Loss: the mean of Dice loss over the batch and cross-entropy; AdamW (paper, 3.6). The order of the slices depends
    on `seed` alone. InputError if the loss is not finite, or if there are fewer slices than a batch.
    """
    slices = len(data)  # type: ignore[arg-type]
    if slices < config.batch_size:
        raise InputError(f"{slices} training slices do not fill one batch of {config.batch_size}; lower batch_size")
    _quiet()
    pl.seed_everything(seed, workers=True, verbose=False)
    loader = DataLoader(
        data,
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=config.workers,
        collate_fn=collate_slices,
        persistent_workers=config.workers > 0,
        pin_memory=config.device == "gpu",
        generator=torch.Generator().manual_seed(seed),
    )
    steps = total_steps(config, slices)
    task = SegmentationTask(network.train(), config, steps)
    trainer = pl.Trainer(
        accelerator=config.device,
        devices="auto" if config.device == "gpu" else 1,
        precision=config.precision,
        max_steps=steps,
        max_epochs=-1,
        deterministic=True if config.device == "cpu" else "warn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_ShowProgress(stage)] if stage else [],
    )
    begin = time.perf_counter()
    trainer.fit(task, loader)
    seconds = time.perf_counter() - begin
    network.eval().cpu()
    return Training(task.losses, seconds)


def total_steps(config: TrainConfig, slices: int) -> int:
    """Optimiser steps of a training on this many slices (the last, incomplete batch of an epoch is dropped)."""
    return config.steps or (config.epochs or 0) * (slices // config.batch_size)


class SegmentationTask(pl.LightningModule):
    """What Lightning needs to know: loss, optimiser, learning rate."""

    def __init__(self, network: nn.Module, config: TrainConfig, steps: int) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.config = config
        self.steps = steps
        # Dice over the batch, as in the public TransUNet code: a class absent from one slice gives no spurious loss.
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, lambda_dice=0.5, lambda_ce=0.5)
        self.losses: list[float] = []

    def loss_of(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of a batch, "image" (B, C, H, W) and "label" (B, H, W), to be minimised. A subclass may add to it."""
        image = batch["image"].contiguous(memory_format=torch.channels_last)  # (B, C, H, W)
        logits = self.network(image).float()  # (B, K, H, W)
        return self.loss(logits, batch["label"][:, None])

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = self.loss_of(batch)
        value = float(loss.detach())
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


class _ShowProgress(pl.Callback):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def on_train_batch_end(self, trainer: pl.Trainer, task: SegmentationTask, *_: Any) -> None:
        self.stage.advance(note=f"loss {task.losses[-1]:.3f}")


def _quiet() -> None:
    """Lightning's advice (workers, tips, devices) is not for the user of a study."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
