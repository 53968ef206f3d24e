"""One training on several devices: each takes its part of every batch, and the numbers stay those of one device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed.nn.functional as distributed
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.plugins.environments import LightningEnvironment
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from vitrim.config import TrainConfig


def devices(config: TrainConfig) -> dict[str, Any]:
    """What Lightning's Trainer has to know about them."""
    # Processes are started here, also in a job of SLURM's, whose tasks Lightning would take for parts of the training.
    here = LightningEnvironment()
    if config.devices == 1:
        return {"devices": 1, "plugins": [here]}
    # Spawned processes leave this one, which holds the study, alone.
    norms = _WholeBatchNorms(config.device == "gpu")
    return {"devices": config.devices, "strategy": "ddp_spawn", "plugins": [here, norms]}


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the parts of a batch on all processes; torch's SyncBatchNorm does not run on a CPU."""

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.load_state_dict(plain.state_dict())
        self.after = nn.Sequential(plain.drop, plain.act) if isinstance(plain, BatchNormAct2d) else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the mean and variance over all processes' parts, which are of equal size."""
        if not self.training:
            return self.after(super().forward(input))
        world = torch.distributed.get_world_size()
        mean = distributed.all_reduce(input.mean((0, 2, 3))) / world  # (C,)
        centred = input - mean[:, None, None]
        variance = distributed.all_reduce(centred.square().mean((0, 2, 3))) / world  # (C,)
        self._remember(mean.detach(), variance.detach(), world * input.numel() // input.shape[1])
        normal = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return self.after(normal * self.weight[:, None, None] + self.bias[:, None, None])

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1), momentum)


class _WholeBatchNorms(LayerSync):
    """Puts layers that see the whole batch in the place of BatchNorm2d, names and weights unchanged."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu

    def apply(self, model: nn.Module) -> nn.Module:
        # Not torch's own conversion: it forgets the activation in timm's BatchNormAct2d.
        return convert_sync_batchnorm(model) if self.gpu else _shared(model)

    def revert(self, model: nn.Module) -> nn.Module:
        return model  # it lives in a process of its own, and its weights fit the network as it was


def _shared(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        return SharedBatchNorm2d(module)
    for name, child in module.named_children():
        setattr(module, name, _shared(child))
    return module
