"""Chooses which blocks to keep: the first ones (the paper), by a score, or at random.

The other criteria serve as comparison: they show whether the first blocks are a good choice.
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
from vitrim.models.adapt import Adapted, check_called, remove
from vitrim.models.block_search import block_output, first_tensor
from vitrim.models.network import Network

BATCH = 8


@dataclass(frozen=True)
class Choice:
    """The blocks to keep, with their criterion and scores."""

    criterion: Criterion
    kept: tuple[int, ...]
    """Block numbers, counted from 1, in ascending order."""
    scores: tuple[float, ...] | None
    """Score of each block of the full network; blocks with the smallest scores are removed. None without scores."""


def choose_blocks(
    model: Network | Adapted,
    count: int,
    criterion: Criterion = "first",
    *,
    images: Iterable[CaseImages] | None = None,
    dice: Callable[[Network | Adapted], float] | None = None,
    seed: int = 0,
) -> Choice:
    """Choose `count` blocks of a model to keep; `model.keep_blocks(choice.kept)` returns the smaller model.

    Criteria: `first` keeps the first blocks, as in the paper (section 3.8). `influence` keeps the blocks with the
    largest block influence on `images` (see `block_influence`). `effect` removes each block separately and keeps the
    blocks whose removal lowers Dice most; `dice` returns the average Dice of a network. `random` draws from `seed`.

    Raises InputError if the criterion or the count is not possible, or if `images` or `dice` is missing.

    Example:
        >>> import vitrim
        >>> network = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32)
        >>> vitrim.choose_blocks(network, 3).kept
        (1, 2, 3)
        >>> network.keep_blocks((1, 5, 12)).depth
        3
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
            raise InputError("criterion influence needs images: give some")
        scores = block_influence(model, images).mean(axis=0)
    else:
        if dice is None:
            raise InputError("criterion effect needs Dice: give cases with labels")
        whole = dice(model)
        scores = np.array([whole - dice(without(model, block)) for block in range(1, model.depth + 1)])
    best = np.argsort(-scores, kind="stable")[:count]
    return Choice(criterion, tuple(sorted(int(block) + 1 for block in best)), tuple(float(score) for score in scores))


@torch.inference_mode()
def block_influence(model: Network | Adapted, images: Iterable[CaseImages]) -> np.ndarray:
    """Measure block influence (cases, blocks): 1 − cosine similarity of a token before and after a block.

    Each value is the mean over tokens, then over the slices of a case (Men et al. 2024). `images` has the form of the
    cases in `profile_attention`. The model runs in eval mode on its current device. Raises InputError without images,
    or if the model calls the parts of its blocks one by one.
    """
    check_called(model)
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
        raise InputError("block influence needs images, and there are none")
    return np.array(cases)


def without(model: Network | Adapted, block: int) -> Network | Adapted:
    """Return a copy of `model` in which one block (counted from 1) returns its tokens unchanged; the rest stays."""
    if isinstance(model, Adapted):
        return model.keep_blocks([n for n in range(1, model.depth + 1) if n != block])
    left = copy.deepcopy(model)
    remove(left.blocks[block - 1], None)
    return left
