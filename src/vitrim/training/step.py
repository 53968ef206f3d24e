"""One step of the optimiser: forward pass, loss, backward pass, update. On a GPU the whole step becomes one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from monai.losses import DiceCELoss
from monai.networks import one_hot
from torch import Tensor, nn

from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError
from vitrim.hardware import allow_random_order, out_of_memory
from vitrim.models.network import Network

if TYPE_CHECKING:
    from lightning.fabric import Fabric

ExtraLoss = Callable[[Tensor, Tensor], Tensor]
"""Function that returns an additional loss term for images (B, C, H, W) and their logits (B, K, H, W)."""

PLAIN_STEPS = 3
"""Steps before a graph is recorded: they set up what CUDA's libraries and the optimiser need."""


def make_optimizer(network: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW (paper, 3.6). On a GPU the learning rate lies on the card, so that a recorded step can change it."""
    gpu = device.type == "cuda"
    rate = torch.tensor(config.learning_rate, device=device) if gpu else config.learning_rate
    return torch.optim.AdamW(
        network.parameters(), lr=rate, weight_decay=config.weight_decay, fused=True, capturable=gpu
    )


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load the state of an optimiser of `make_optimizer`; its learning rate stays where it is."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def can_be_one_graph(network: nn.Module, config: TrainConfig) -> bool:
    """Whether every step is the same sequence of operations on one GPU, so that a graph of one step is all of them.

    Networks that are not ours may take another path in each step, and so does nested training. `compile` records by
    itself. With 16-mixed, the gradient scaler decides in each step.
    """
    alone = config.device == "gpu" and config.processes == 1
    return (
        alone
        and isinstance(network, Network)
        and not (config.nested or config.compile or config.precision == "16-mixed")
    )


class OptimizerStep:
    """Does one step after another. Nothing waits for a GPU.

    With `one_graph`, the step after the first `PLAIN_STEPS` is recorded as a CUDA graph and then replayed: the same
    operations with the same results, started by one call instead of thousands.
    """

    def __init__(
        self, fabric: Fabric, model: nn.Module, optimizer: Any, criterion: SegmentationLoss, one_graph: bool = False
    ) -> None:
        self.fabric, self.model, self.optimizer, self.criterion = fabric, model, optimizer, criterion
        self.one_graph = one_graph
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream() if fabric.device.type == "cuda" else None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Queue all work in one stream, in which a graph can be recorded."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def __call__(self, batch: dict[str, Tensor], rate: float) -> Tensor:
        """Do one step with the learning rate `rate`; return the loss, on the device.

        Raises InputError if the batch does not fit into the GPU's memory.
        """
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        size, error = len(batch["image"]), None
        try:
            loss = self._step(batch)
        except torch.OutOfMemoryError as reason:
            error = str(reason)
        if error is not None:
            where = " on each device" if self.fabric.world_size > 1 else ""
            fitting = out_of_memory(lambda n: self._plain(*self._moved(batch, n)), size, "training.batch_size")
            raise InputError(fitting + where)
        self._done += 1
        return loss

    def _step(self, batch: dict[str, Tensor]) -> Tensor:
        image, label = self._moved(batch, len(batch["image"]))
        if self._done == 0 and self._stream is not None:
            return self._first(image, label)
        if not self.one_graph or self._done < PLAIN_STEPS:
            return self._plain(image, label)
        if self._graph is None:
            self._record(image, label)
            assert self._graph is not None
        else:
            self._image.copy_(image)
            self._label.copy_(label)
        self._graph.replay()
        return self._loss

    def _first(self, image: Tensor, label: Tensor) -> Tensor:
        """Do the first step on a GPU. If an operation has no deterministic form there, do without determinism."""
        try:
            return self._plain(image, label)
        except RuntimeError as error:
            if not allow_random_order(error):
                raise
        return self._plain(image, label)

    def _record(self, image: Tensor, label: Tensor) -> None:
        """Record a step with `image` and `label` as its inputs; this does not execute it."""
        self._image, self._label = image.clone(), label.clone()
        self.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        # The loader's threads may use CUDA meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._loss = self._plain(self._image, self._label)
        self._graph = graph

    def _moved(self, batch: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
        """Return the first `size` images (B, C, H, W) and labels (B, H, W) of a batch, on the device."""
        image, label = (batch[name][:size].to(self.fabric.device, non_blocking=True) for name in ("image", "label"))
        return image.contiguous(memory_format=torch.channels_last), label

    def _plain(self, image: Tensor, label: Tensor) -> Tensor:
        with self.fabric.autocast():
            logits = self.model(image)  # (B, K, H, W)
            loss = self.criterion(image, logits, label)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()


def segmentation_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean of Dice loss and cross-entropy for logits (B, K, H, W) in float32 and labels (B, H, W)."""
    # Dice over the batch, as in the public TransUNet code: a class absent from one slice adds no loss. One-hot labels,
    # because on a GPU cross-entropy of class numbers gives other bits in each run.
    loss = DiceCELoss(softmax=True, batch=True, lambda_dice=0.5, lambda_ce=0.5)
    return loss(logits, one_hot(label[:, None], logits.shape[1]))


class SegmentationLoss:
    """The mean of Dice loss over the batch and cross-entropy, plus the extra loss term if there is one."""

    def __init__(self, fabric: Fabric, extra_loss: ExtraLoss | None = None) -> None:
        self.fabric, self.extra_loss = fabric, extra_loss

    def __call__(self, image: Tensor, logits: Any, label: Tensor) -> Tensor:
        """Return the loss to minimise, for images (B, C, H, W), logits (B, K, H, W) and labels (B, H, W).

        If each of several devices has a part of the batch, every device gets the loss of the whole batch. Raises
        InputError if `logits` is not a tensor of four axes.
        """
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            raise InputError("the network does not return logits (batch, classes, height, width)")
        own = whole = logits.float()
        if self.fabric.world_size > 1:
            # Dice needs the whole batch, so the parts are gathered first; the devices then average equal losses.
            whole = self.fabric.all_gather(own, sync_grads=True).flatten(0, 1)
            label = self.fabric.all_gather(label).flatten(0, 1)
        loss = segmentation_loss(whole, label)
        return loss if self.extra_loss is None else loss + self.extra_loss(image, own)
