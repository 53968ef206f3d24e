"""The loss on tuning cases while a network trains, and the best weights by it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from vitrim.config.training_schema import TrainConfig
from vitrim.data.cache import collate_slices
from vitrim.data.sampling import evenly_spaced
from vitrim.training.step import segmentation_loss

if TYPE_CHECKING:
    from lightning.fabric import Fabric

STEPS, MOMENTS = 50, (5, 20)
"""The loss is measured about every 50 steps, but at least 5 and at most 20 times in a training."""

SHARE, SLICES = 0.01, (16, 512)
"""It is measured on a hundredth of the number of slices that a training processes, within these limits."""


class TuningLoss:
    """Measures the loss on some tuning slices at moments that follow from the number of steps alone."""

    def __init__(self, fabric: Fabric, data: Dataset[Any], config: TrainConfig, steps: int) -> None:
        """Choose evenly spaced slices of `data`, items {"image": (C, H, W), "label": (H, W)}, and the moments."""
        self.fabric, self.batch_size, self.steps = fabric, config.batch_size, steps
        wanted = min(max(round(SHARE * steps * config.batch_size), SLICES[0]), SLICES[1])
        self.data: Dataset[Any] = Subset(data, evenly_spaced(range(len(data)), wanted))  # type: ignore[arg-type]
        self.every = math.ceil(steps / min(max(steps // STEPS, MOMENTS[0]), MOMENTS[1]))

    def due(self, step: int) -> bool:
        """Whether the loss is measured after this step, counted from 1."""
        return step % self.every == 0 or step == self.steps

    @torch.no_grad()
    def measure(self, network: nn.Module) -> float:
        """Return the mean over batches, weighted by their slices. `network` is in training mode before and after."""
        network.eval()
        total, slices = 0.0, len(self.data)  # type: ignore[arg-type]
        for first in range(0, slices, self.batch_size):
            items = [self.data[place] for place in range(first, min(first + self.batch_size, slices))]
            batch = {name: part.to(self.fabric.device) for name, part in collate_slices(items).items()}
            with self.fabric.autocast():
                logits: Tensor = network(batch["image"].contiguous(memory_format=torch.channels_last))
            total += float(segmentation_loss(logits.float(), batch["label"])) * len(items)
        network.train()
        return total / slices


def is_best(losses: dict[int, float]) -> bool:
    """Whether the last of these losses is lower than all before it. A loss that is not finite is never the best."""
    *before, last = losses.values()
    return math.isfinite(last) and all(not other <= last for other in before)


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of weights in memory that no later step changes."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
