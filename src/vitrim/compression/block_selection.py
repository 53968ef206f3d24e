"""Which blocks to keep for a given number: the first (the paper), or by a score, or by chance.

The others are there to be compared with, so that one can see whether keeping the first blocks chooses well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrim.attention.forward import CaseImages
from vitrim.config.names import Criterion
from vitrim.config.reading import checked_name
from vitrim.errors import InputError
from vitrim.models.adapt import Adapted, remove
from vitrim.models.block_search import block_output, first_tensor
from vitrim.models.network import Network

BATCH = 8


@dataclass(frozen=True)
class Choice:
    """Blocks to keep, and why."""

    criterion: Criterion
    kept: tuple[int, ...]
    """Counted from 1, in order."""
    scores: tuple[float, ...] | None
    """What each block of the full network is worth by this method; the smallest are dropped. None without scores."""


def choose_blocks(
    model: Network | Adapted,
    count: int,
    criterion: Criterion = "first",
    *,
    images: Iterable[CaseImages] | None = None,
    dice: Callable[[nn.Module], float] | None = None,
    seed: int = 0,
) -> Choice:
    """Choose `count` of a model's blocks to keep; `model.keep_blocks(choice.kept)` is the smaller model.

    first: the first ones, as in the paper (section 3.8). influence: those with the largest block influence on `images`
    (see `block_influence`). effect: those without which `dice`, a function from a network to its average Dice, falls
    the most, each left out by itself. random: drawn from `seed`.

    Raises InputError for another method or count, or where `images` or `dice` is missing.
    """
    checked_name(criterion, Criterion, "criterion")
    if not 0 <= count <= model.depth:
        raise InputError(f"cannot keep {count} of {model.depth} blocks")
    if criterion == "first":
        return Choice(criterion, tuple(range(1, count + 1)), None)
    if criterion == "random":
        drawn = np.random.default_rng(seed).permutation(model.depth)[:count]
        return Choice(criterion, tuple(sorted(int(block) + 1 for block in drawn)), None)
    if criterion == "influence":
        if images is None:
            raise InputError("block influence is measured on images: give some")
        scores = block_influence(model, images).mean(axis=0)
    else:
        if dice is None:
            raise InputError("the effect of a block is measured by Dice: give cases with labels")
        whole = dice(model)
        scores = np.array([whole - dice(without(model, block)) for block in range(1, model.depth + 1)])
    best = np.argsort(-scores, kind="stable")[:count]
    return Choice(criterion, tuple(sorted(int(block) + 1 for block in best)), tuple(float(score) for score in scores))


@torch.inference_mode()
def block_influence(model: Network | Adapted, images: Iterable[CaseImages]) -> np.ndarray:
    """How much each block turns its tokens: 1 − cosine similarity of a token before and after it (Men et al. 2024).

    Mean over tokens, then over the slices of a case; (cases, blocks). Images as for `profile_attention`'s cases.
    The model runs in eval mode, where it is.
    """
    training = model.training
    device = next(model.parameters()).device
    turned: list[list[Tensor]] = [[] for _ in range(model.depth)]

    def note(index: int) -> Callable[..., None]:
        def hook(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = first_tensor(args, kwargs)
            assert before is not None
            similarity = F.cosine_similarity(before.float(), block_output(output).float(), dim=-1)
            turned[index].append(1 - similarity.flatten(1).mean(dim=1))

        return hook

    hooks = [block.register_forward_hook(note(n), with_kwargs=True) for n, block in enumerate(model.blocks)]
    cases = []
    try:
        model.eval()
        for _, slices, _ in images:
            for batch in slices.split(BATCH):
                model(batch.to(device))
            cases.append([float(torch.cat(block).mean()) for block in turned])
            for block in turned:
                block.clear()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    if not cases:
        raise InputError("block influence is measured on images: there are none")
    return np.array(cases)


def without(model: Network | Adapted, block: int) -> nn.Module:
    """A copy of `model` in which one block, counted from 1, hands its tokens on; everything else stays in its place."""
    left = copy.deepcopy(model)
    remove(left.blocks[block - 1], left.found.returns if isinstance(left, Adapted) else None)
    return left
