"""Attention of a model over many images, measured while batches stream through and never kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.forward import as_written, batches, run_captured
from vitrim.attention.measures import checked_measures, globality, measure_maps, rollout
from vitrim.attention.profile import AttentionProfile
from vitrim.attention.tokens import Tokens, check_call, check_layers, find_tokens, own_attention
from vitrim.errors import InputError

__all__ = ["AttentionProfile", "profile_attention"]


def profile_attention(
    model: nn.Module,
    images: Any,
    *,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
    cases: Sequence[str] | None = None,
    spacing: tuple[float, float] | None = None,
    patch: float | tuple[float, float] | None = None,
    measures: Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    batch_size: int = 8,
    queries: int = 32,
    progress: Callable[[int], None] | None = None,
) -> AttentionProfile:
    """Measure where each block and head of `model` attends, over any number of images, in constant memory.

    Blocks are the attention layers of `model.blocks`, or else all attention layers in the order in which they run;
    attention of a few queries to all tokens (pooling, decoders) is left out.

    Args:
        model: any network whose attention `capture_attention` sees; it runs in eval mode, and its mode is put back.
        images: a tensor (B, C, H, W), each image a case; or an iterable of (case id, images (S, C, H, W), pixel spacing
            (row_mm, column_mm) or None), S slices of one case; or a loader of tensors, of dictionaries with "image", or
            of tuples that begin with the images, each image a case.
        grid: token grid (h, w); by default what the model says of itself, or what fits the image.
        prefix_tokens: class and register tokens before the patches, dropped; by default what the grid leaves over.
        cases: ids for the images of a tensor or loader; images with the same id are slices of one case.
        spacing: mm from one pixel of the image to the next (rows, columns), where `images` does not say.
        patch: pixels from one patch to the next; by default the image's size over the grid.
        measures: names out of `MEASURES`; all by default.
        layers: names or patterns ("encoder.*.attn") of the attention layers that count as blocks.
        queries: how many queries the proximity correlation looks at.
        progress: called with the number of images done, after each batch.

    Raises:
        InputError: if nothing was captured, the tokens fit no grid, attention is windowed, hierarchical or to other
            tokens than the image's, it is not finite, or the model cannot take the images.

    Example:
        >>> import torch, vitrim
        >>> network = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=2)
        >>> profile = vitrim.profile_attention(network, torch.randn(6, 3, 32, 32), measures=["globality", "entropy"])
        >>> profile.of("globality").shape
        (6, 2)
        >>> list(profile.table().columns)
        ['case', 'block', 'head', 'measure', 'value']
    """
    model, names = as_written(model), checked_measures(measures)
    sums = _Sums(names)
    wanted = own_attention(model, layers)
    describe = partial(find_tokens, model=model, grid=grid, prefix_tokens=prefix_tokens, patch=patch)
    tokens: Tokens | None = None
    for case_ids, batch, mm in batches(images, cases, spacing, batch_size):
        reducer = BatchReducer(
            len(batch),
            (int(batch.shape[-2]), int(batch.shape[-1])),
            names,
            wanted=wanted,
            describe=describe,
            tokens=tokens,
            spacing=mm,
            queries=queries,
        )
        captured = run_captured(model, batch, reducer, layers)
        if tokens is None:
            check_layers(model, layers, captured)
        tokens = reducer.tokens
        sums.add(case_ids, [layer for layer, _ in captured.calls], captured.results)
        if progress is not None:
            progress(sums.images)
    if tokens is None:
        raise InputError("there are no images to look at")
    return sums.profile(tokens, queries)


class _Sums:
    """What has been measured so far: sums per case, and nothing else."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.layers: list[str] = []
        self.heads: tuple[int, ...] = ()
        self.images = 0
        self.rows: dict[str, int] = {}  # of each case in `totals`
        self.slices: list[int] = []
        self.totals = np.empty(0)  # (room for cases, blocks, 1 + heads, measures)

    def add(self, case_ids: list[str], layers: list[str], results: list[Tensor]) -> None:
        """Add one batch: for each block the measures (B, 1 + heads, measures) of its images."""
        arrays = [values.double().cpu().numpy() for values in results]
        heads = tuple(array.shape[1] - 1 for array in arrays)
        if not self.layers:
            self.layers, self.heads = layers, heads
            self.totals = self._room(64)
        elif (layers, heads) != (self.layers, self.heads):
            raise InputError(
                f"the model ran {len(layers)} attention layers for one batch and {len(self.layers)} before it: "
                "blocks that come and go cannot be profiled"
            )
        for block, array in enumerate(arrays, 1):
            self._check_finite(array, block, case_ids)
        for image, case in enumerate(case_ids):
            row = self.rows.setdefault(case, len(self.rows))
            if row == len(self.slices):
                self.slices.append(0)
            if row == len(self.totals):
                self.totals = np.concatenate([self.totals, self._room(len(self.totals))])
            self.slices[row] += 1
            for block, array in enumerate(arrays):
                self.totals[row, block, : array.shape[1]] += array[image]
        self.images += len(case_ids)

    def _room(self, cases: int) -> np.ndarray:
        """Zeros for so many cases, NaN where a block has fewer heads. One piece: small ones scatter over the heap."""
        room = np.zeros((cases, len(self.heads), 1 + max(self.heads), len(self.names)))
        for block, heads in enumerate(self.heads):
            room[:, block, 1 + heads :] = math.nan
        return room

    def _check_finite(self, array: np.ndarray, block: int, case_ids: list[str]) -> None:
        known = [i for i, name in enumerate(self.names) if name not in ("rollout_globality", "distance_mm")]
        bad = ~np.isfinite(array[..., known]).all(axis=(1, 2))
        if bad.any():
            case = case_ids[int(bad.argmax())]
            raise InputError(
                f"attention in block {block} is not finite for case {case}: look for NaN in image and weights"
            )

    def profile(self, tokens: Tokens, queries: int) -> AttentionProfile:
        """Means over each case's slices."""
        values = self.totals[: len(self.rows)] / np.array(self.slices)[:, None, None, None]
        present = [i for i in range(len(self.names)) if not np.isnan(values[..., i]).all()]  # mm goes if unknown
        return AttentionProfile(
            cases=tuple(self.rows),
            slices=tuple(self.slices),
            layers=tuple(self.layers),
            heads=self.heads,
            measures=tuple(self.names[i] for i in present),
            values=values[..., present],
            grid=tokens.grid,
            prefix_tokens=tokens.prefix,
            patch=tokens.patch,
            queries=min(queries, tokens.grid[0] * tokens.grid[1]),
        )


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
