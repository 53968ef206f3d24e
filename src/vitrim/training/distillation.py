"""Trains a truncated network further from its kept weights, alone or with the full network as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError
from vitrim.models.adapt import Adapted, check_called
from vitrim.models.block_search import block_output
from vitrim.models.network import Network
from vitrim.progress import Stage
from vitrim.training.loop import Training, train_network

TEMPERATURE = 2.0
"""Temperature of the soft labels."""
SOFT_LABELS, HIDDEN_STATES = 1.0, 1.0
"""Weights of the teacher's two loss terms; the loss on the reference has weight 1."""


def recover(
    small: Network | Adapted,
    data: Dataset[Any],
    config: TrainConfig,
    *,
    teacher: Network | Adapted | None = None,
    kept: tuple[int, ...] | None = None,
    seed: int = 0,
    stage: Stage | None = None,
    **options: Any,
) -> Training:
    """Train `small` further, in place, with `train_network`; with a `teacher`, distil from it (Hinton et al. 2015).

    Distillation adds two terms to the loss. The first is the Kullback-Leibler divergence of each pixel's class
    probabilities from the teacher's, both softened by a temperature of 2, times the squared temperature. The second is
    the squared distance between the tokens after each block and after the same block of the teacher, relative to the
    variance of the teacher's tokens, mean over the kept blocks. `kept` lists these blocks of the teacher (by default
    the first ones). The teacher does not change. `options` go to `train_network`.

    Raises InputError if teacher and network do not match, or as `train_network` does.

    Example:
        >>> import torch, vitrim
        >>> full = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=2)
        >>> small = vitrim.truncate(full, 1)
        >>> slices = [{"image": torch.randn(3, 32, 32), "label": torch.ones(32, 32).long()}] * 4
        >>> training = vitrim.recover(small, slices, vitrim.TrainConfig(steps=2, batch_size=2), teacher=full)
        >>> len(training.losses)
        2
    """
    if isinstance(small, Adapted) and small.example.ndim != 4:
        raise InputError(f"{small.title} takes volumes, and recovery trains on slices: train it with its own code")
    if teacher is None:
        return train_network(small, data, config, seed, stage, **options)
    kept = tuple(range(1, small.depth + 1)) if kept is None else kept
    if len(kept) != small.depth or any(not 1 <= block <= teacher.depth for block in kept):
        raise InputError(f"kept must name {small.depth} of the teacher's {teacher.depth} blocks, but it is {kept}")
    check_called(teacher)
    training = teacher.training
    theirs = [teacher.blocks[block - 1] for block in kept]
    with tokens_after(list(small.blocks)) as mine, tokens_after(theirs) as wanted:
        try:
            teacher.eval()
            extra = _Teaching(teacher, mine, wanted)
            return train_network(small, data, config, seed, stage, extra_loss=extra, **options)
        finally:
            teacher.train(training).cpu()


class _Teaching:
    """The teacher's loss terms, for the batch that the network has just computed."""

    def __init__(self, teacher: nn.Module, mine: dict[int, Tensor], wanted: dict[int, Tensor]) -> None:
        self.teacher, self.mine, self.wanted = teacher, mine, wanted

    def __call__(self, images: Tensor, logits: Tensor) -> Tensor:
        with torch.no_grad():
            theirs = self.teacher.to(images.device)(images).float()  # (B, K, H, W)
        if theirs.shape != logits.shape:
            raise InputError(f"logits differ in shape: teacher {tuple(theirs.shape)}, network {tuple(logits.shape)}")
        loss = SOFT_LABELS * soft_label_loss(logits, theirs)
        if self.mine:
            distances = [token_loss(self.mine[n], self.wanted[n]) for n in self.mine]
            loss = loss + HIDDEN_STATES * torch.stack(distances).mean()
        return loss


def soft_label_loss(logits: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the divergence of class probabilities (B, K, ...) from the teacher's, mean over pixels, × temperature²."""
    mine = F.log_softmax(logits / temperature, dim=1)
    theirs = F.log_softmax(teacher / temperature, dim=1)
    pixels = logits.numel() / logits.shape[1]
    return F.kl_div(mine, theirs, reduction="sum", log_target=True) / pixels * temperature**2


def token_loss(tokens: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared distance of tokens (B, N, dim) from the teacher's, relative to the latter's variance."""
    return F.mse_loss(tokens.float(), teacher.float()) / teacher.float().var().clamp_min(1e-6)


@contextmanager
def tokens_after(blocks: list[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Give a dictionary that holds, after each forward pass, the output tokens of each of `blocks`."""
    tokens: dict[int, Tensor] = {}
    hooks = [block.register_forward_hook(_Note(tokens, index)) for index, block in enumerate(blocks)]
    try:
        yield tokens
    finally:
        for hook in hooks:
            hook.remove()


class _Note:
    """A hook that stores a block's tokens; a class, because it is pickled with the network for other processes."""

    def __init__(self, tokens: dict[int, Tensor], index: int) -> None:
        self.tokens, self.index = tokens, index

    def __call__(self, block: nn.Module, args: Any, output: Any) -> None:
        self.tokens[self.index] = block_output(output)
