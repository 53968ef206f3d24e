"""Training on several devices: each processes a part of every batch, and results are those of one device."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed.nn.functional as distributed
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from vitrim.config.names import Device
from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError

TIMEOUT = 600.0
"""Seconds that a machine waits for another one, at the start or at any step, before it gives up."""


@dataclass(frozen=True)
class Rendezvous:
    """The rendezvous of the machines of one training: an address and a port, and the node number of this machine."""

    node: int
    """Number of this machine, counted from 0; node 0 is the machine at `address`."""
    address: str
    port: int


def rendezvous(nodes: int) -> Rendezvous:
    """Read the rendezvous from the environment: MASTER_ADDR, MASTER_PORT, and NODE_RANK, GROUP_RANK or SLURM_NODEID.

    Raises InputError if a variable is missing or is no valid number, or if the node number is not below `nodes`.
    """
    node = next((name for name in ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID") if name in os.environ), "NODE_RANK")
    for name in ("MASTER_ADDR", "MASTER_PORT", node):
        if not os.environ.get(name):
            raise InputError(
                f"{nodes} nodes need {name} in the environment: MASTER_ADDR and MASTER_PORT say where node 0 is, "
                f"NODE_RANK (or GROUP_RANK, SLURM_NODEID) which node this is"
            )
    number = _number(node)
    if number >= nodes:
        raise InputError(f"{node} is {number}, but there are {nodes} nodes, counted from 0; set --nodes")
    port = _number("MASTER_PORT")
    if not 1 <= port < 65535:
        raise InputError(f"MASTER_PORT is {port}; it and the next number must be ports: choose one from 1024 to 65534")
    return Rendezvous(number, os.environ["MASTER_ADDR"], port)


def _number(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{name} is {text!r} in the environment; it must be a whole number, 0 or larger")
    return int(text)


def make_fabric(config: TrainConfig, here: Rendezvous | None = None) -> Fabric:
    """Return Lightning's Fabric for a training configuration.

    Several machines meet at `here`, or at the rendezvous in the environment. Raises InputError as `rendezvous` does.
    """
    quiet()
    # This function starts the processes. In a SLURM job, Lightning would use the job's tasks as training processes.
    precision = "32-true" if config.precision == "tf32" else config.precision  # `float32_products` sets tf32
    common: dict[str, Any] = {"accelerator": config.device, "precision": precision}
    if config.processes == 1:
        return Fabric(**common, devices=1, plugins=[LightningEnvironment()])
    environment = LightningEnvironment() if config.nodes == 1 else _AtRendezvous(here or rendezvous(config.nodes))
    # With spawn, this process, which runs the study, stays outside the training.
    strategy = DDPStrategy(start_method="spawn", timeout=timedelta(seconds=TIMEOUT))
    return Fabric(**common, devices=config.devices, num_nodes=config.nodes, strategy=strategy, plugins=[environment])


def quiet() -> None:
    """Hide Lightning's advice (workers, tips, devices), which does not help the user of a study; not if verbose."""
    if logging.getLogger("vitrim").isEnabledFor(logging.INFO):
        return
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.nn.* is deprecated")  # its successor is private
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*capturable=True.*")  # the first steps are not recorded
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")


class _AtRendezvous(LightningEnvironment):
    """Gives Lightning the values of a `Rendezvous` in place of the environment's."""

    def __init__(self, place: Rendezvous) -> None:
        super().__init__()
        self.place = place
        # torchrun sets this if it serves a store at MASTER_PORT; it serves none at the port of this rendezvous.
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)

    @property
    def creates_processes_externally(self) -> bool:
        return False

    @property
    def main_address(self) -> str:
        return self.place.address

    @property
    def main_port(self) -> int:
        return self.place.port

    def node_rank(self) -> int:
        return self.place.node


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the whole batch of all processes; torch's SyncBatchNorm does not run on a CPU."""

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.load_state_dict(plain.state_dict())
        self.after = nn.Sequential(plain.drop, plain.act) if isinstance(plain, BatchNormAct2d) else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by mean and variance over all processes' parts of the batch, which have equal size."""
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


def share_batch_norms(network: nn.Module, device: Device) -> nn.Module:
    """Replace every BatchNorm2d by a layer that normalises over the whole batch; names and weights stay."""
    # timm's conversion, because torch's drops the activation in timm's BatchNormAct2d.
    return convert_sync_batchnorm(network) if device == "gpu" else _shared(network)


def _shared(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        return SharedBatchNorm2d(module)
    for name, child in module.named_children():
        setattr(module, name, _shared(child))
    return module
