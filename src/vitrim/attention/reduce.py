"""From the attention of one batch to its measures, part by part."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitrim.attention.capture import AttentionCall
from vitrim.attention.measures import globality, measure_maps, rollout
from vitrim.attention.tokens import Tokens, check_call

ROLLOUT = "rollout_globality"


class BatchReducer:
    """Takes the attention calls of one batch, block after block; the rollout so far is all that it keeps."""

    def __init__(
        self,
        images: int,
        image_size: tuple[int, int],
        names: tuple[str, ...],
        *,
        wanted: Callable[[str], bool],
        describe: Callable[[AttentionCall, tuple[int, int]], Tokens],
        tokens: Tokens | None,
        spacing: tuple[float, float] | None,
        queries: int,
    ) -> None:
        self.images, self.image_size, self.names = images, image_size, names
        self.wanted, self.describe, self.tokens = wanted, describe, tokens
        self.spacing, self.queries = spacing, queries
        self.rolled: Tensor | None = None  # (B, N, N)

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """Measures of one block, (B, 1 + heads, measures), the head-averaged attention first; None if it is no block's.

        Raises:
            InputError: if the attention is not over one grid of the image's patches.
        """
        if not self.wanted(call.layer) or call.shape[2] < call.shape[3]:
            return None
        check_call(call, self.images, self.image_size, self.tokens)
        tokens = self.tokens = self.tokens or self.describe(call, self.image_size)
        heads = call.shape[1]
        values = torch.full((self.images, 1 + heads, len(self.names)), math.nan, device=call.device)
        total: Any = 0.0
        for images, some, weights in call.parts(tokens.prefix):
            values[images, 1 + some.start : 1 + some.stop] = self._measure(weights, tokens)
            total = weights.sum(dim=1) + (total if some.start else 0.0)
            if some.stop == heads:
                mean = total / heads  # (b, N, N)
                values[images, 0] = self._measure(mean, tokens)
                if ROLLOUT in self.names:
                    values[images, 0, self.names.index(ROLLOUT)] = self._roll(images, mean, tokens)
        return values

    def _measure(self, weights: Tensor, tokens: Tokens) -> Tensor:
        return measure_maps(weights, self.names, tokens.grid, tokens.patch, self.spacing, self.queries)

    def _roll(self, images: slice, mean: Tensor, tokens: Tokens) -> Tensor:
        """Take the rollout of these images one block on, and give its globality (b,)."""
        if self.rolled is None:
            self.rolled = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device).repeat(self.images, 1, 1)
        self.rolled[images] = rollout(mean, self.rolled[images])
        return globality(self.rolled[images], tokens.grid)
