"""Measures the attention of a model over many images, batch by batch. Attention maps are not kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.forward import Spacing, as_written, batches, captured_runs
from vitrim.attention.measures import MEASURES, checked_measures, globality, measure_maps, rollout
from vitrim.attention.profile import AttentionProfile
from vitrim.attention.softmax import DotProduct, Weights, joined, parts
from vitrim.attention.tokens import Tokens, check_call, check_layers, find_tokens, own_attention
from vitrim.errors import InputError

__all__ = ["AttentionProfile", "profile_attention"]


def profile_attention(
    model: nn.Module,
    images: Any,
    *,
    grid: tuple[int, ...] | None = None,
    prefix_tokens: int | None = None,
    cases: Sequence[str] | None = None,
    spacing: Spacing | None = None,
    patch: float | tuple[float, ...] | None = None,
    measures: Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    batch_size: int = 8,
    queries: int = 196,
    progress: Callable[[int], None] | None = None,
) -> AttentionProfile:
    """Measure where each block and head of `model` attends. Memory does not grow with the number of images.

    Blocks are the attention layers that `layers` selects. By default they are the attention layers inside
    `model.blocks`, or all attention layers if the model has no `blocks`. They are numbered in the order in which they
    run. Attention with fewer queries than keys (pooling, decoders) is left out.

    Args:
        model: any network whose attention `capture_attention` captures. It runs in eval mode; its mode is restored.
        images: one of three forms. A tensor (B, C, H, W): each image is a case. An iterable of (case id, images
            (S, C, H, W), pixel spacing (row_mm, column_mm) or None): S slices of one case. A loader of tensors, of
            dictionaries with "image", or of tuples whose first item is the images: each image is a case. Volumes
            (B, C, D, H, W) are images of three axes: grid, spacing and patch then have three numbers.
        grid: token grid (h, w). By default the grid that the model states, otherwise the grid that fits the image.
        prefix_tokens: number of class and register tokens before the patches. They are dropped. By default the number
            of tokens that do not belong to the grid.
        cases: ids for the images of a tensor or loader. Images with the same id are slices of one case.
        spacing: distance from one pixel to the next in mm (rows, columns), for images without their own spacing.
        patch: distance from one patch to the next in pixels. By default the image size divided by the grid.
        measures: names from `MEASURES`. By default all.
        layers: names or patterns ("encoder.*.attn") of the attention layers that count as blocks.
        batch_size: maximum number of images in one batch.
        queries: largest number of queries that the proximity correlation uses.
        progress: called after each batch with the number of images done so far.

    Raises:
        InputError: if there are no images, their shape is wrong or their sizes differ, `cases` is too short, a measure
            is unknown, the model cannot process the images, no attention was captured, a block does not make exactly
            one attention call, the layers differ between batches, the tokens fit no grid, attention is windowed or
            hierarchical, or it is not finite.

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
    tokens, done = None, 0
    waiting: tuple[list[str], list[str], list[Tensor]] | None = None  # a GPU computes them while the next batch starts
    with captured_runs(model, layers) as run:
        for case_ids, batch, mm in batches(images, cases, spacing, batch_size):
            reducer = BatchReducer(
                len(batch),
                tuple(batch.shape[2:]),
                names,
                wanted=wanted,
                describe=describe,
                tokens=tokens,
                spacing=mm,
                queries=queries,
            )
            captured = run(batch, reducer)
            if tokens is None:
                check_layers(model, layers, captured)
            tokens = reducer.tokens
            measured = reducer.measured(captured.results)
            if waiting is not None:
                sums.add(*waiting)
            waiting = (case_ids, [layer for layer, _ in captured.calls], measured)
            done += len(batch)
            if progress is not None:
                progress(done)
    if tokens is None or waiting is None:
        raise InputError("there are no images to profile")
    sums.add(*waiting)
    return sums.profile(tokens, queries)


class _Sums:
    """Sums of the measures for each case."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.layers: list[str] = []
        self.heads: tuple[int, ...] = ()
        self.rows: dict[str, int] = {}  # row of each case in `totals`
        self.slices: list[int] = []
        self.totals = np.empty(0)  # (allocated cases, blocks, 1 + heads, measures)

    def add(self, case_ids: list[str], layers: list[str], results: list[Tensor]) -> None:
        """Add one batch: `results` holds the measures (B, 1 + heads, measures) of its images, block by block.

        Raises InputError if the blocks or heads differ from those of the first batch, or if a value is not finite.
        """
        # Blocks with the same number of heads are copied from a GPU at once.
        alike = len({values.shape for values in results}) == 1
        parts = torch.stack(results).double().cpu() if alike else [values.double().cpu() for values in results]
        arrays = [part.numpy() for part in parts]
        heads = tuple(array.shape[1] - 1 for array in arrays)
        if not self.layers:
            self.layers, self.heads = layers, heads
            self.totals = self._room(64)
        elif (layers, heads) != (self.layers, self.heads):
            raise InputError(
                f"the attention layers of the model differ between batches ({len(self.layers)} in the first, "
                f"{len(layers)} in a later one): every batch must run the same layers with the same heads"
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

    def _room(self, cases: int) -> np.ndarray:
        """Zeros for `cases` cases; NaN if a block has fewer heads. One array, because many small ones waste memory."""
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
                f"attention in block {block} is not finite for case {case}: check the image and the weights for NaN"
            )

    def profile(self, tokens: Tokens, queries: int) -> AttentionProfile:
        """Return the profile: for each case, the mean over its slices."""
        values = self.totals[: len(self.rows)] / np.array(self.slices)[:, None, None, None]
        # distance_mm is left out if no spacing is known
        present = [i for i in range(len(self.names)) if not np.isnan(values[..., i]).all()]
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
            queries=min(queries, math.prod(tokens.grid)),
        )


ROLLOUT = "rollout_globality"


def _kind(result: Tensor | DotProduct) -> tuple[Any, ...]:
    """Blocks that follow one another and have the same kind are measured together if the first item is true."""
    return (True, result.shape, result.scale) if isinstance(result, DotProduct) else (False,)


def measures_together(call: AttentionCall) -> bool:
    """Whether the call's measures wait until the model has run, to be computed for all blocks at once.

    Blocks of a small batch keep a GPU busy for less time than the processor needs to start their operations, so fewer
    and larger operations are faster there. On a CPU, maps that fit into its cache are faster.
    """
    source = call.source
    return (
        call.device.type == "cuda" and isinstance(source, DotProduct) and source.mask is None and not source.is_causal
    )


class BatchReducer:
    """Computes the measures of each attention call of one batch. It keeps only the rollout of the blocks so far."""

    def __init__(
        self,
        images: int,
        image_size: tuple[int, ...],
        names: tuple[str, ...],
        *,
        wanted: Callable[[str], bool],
        describe: Callable[[AttentionCall, tuple[int, ...]], Tokens],
        tokens: Tokens | None,
        spacing: Spacing | None,
        queries: int,
    ) -> None:
        self.images, self.image_size, self.names = images, image_size, names
        self.wanted, self.describe, self.tokens = wanted, describe, tokens
        self.spacing, self.queries = spacing, queries
        self.rolled: Tensor | None = None  # (B, N, N)
        # The mean over heads of a linear measure is that of the head-averaged map, which is then not needed.
        self.all_linear = all(MEASURES[name].linear is not None for name in names)

    def __call__(self, call: AttentionCall) -> Tensor | DotProduct | None:
        """Compute the measures of one block, (B, 1 + heads, measures). Index 0 is the head-averaged attention.

        Returns None if the call does not belong to a block, and what `measured` needs if all blocks are measured
        together. Raises InputError if the attention is not over one grid of all patches of the image.
        """
        if not self.wanted(call.layer) or call.shape[2] < call.shape[3]:
            return None
        check_call(call, self.images, self.image_size, self.tokens)
        self.tokens = self.tokens or self.describe(call, self.image_size)
        if self.all_linear and measures_together(call):
            assert isinstance(call.source, DotProduct)
            return call.source.kept()
        return self._values(call.source)

    def measured(self, results: Sequence[Tensor | DotProduct]) -> list[Tensor]:
        """Return the measures (B, 1 + heads, measures) of every block, from what the reducer returned for it."""
        found: list[Tensor] = []
        for (waits, *_), group in groupby(results, _kind):
            if waits:
                calls = [call for call in group if isinstance(call, DotProduct)]
                with torch.no_grad(), torch.autocast(calls[0].device.type, enabled=False):
                    found += self._values(joined(calls)).split(self.images)
            else:
                found += [values for values in group if isinstance(values, Tensor)]
        return found

    def _values(self, source: Weights) -> Tensor:
        """Return the measures (images, 1 + heads, measures) of one or several blocks."""
        tokens = self.tokens
        assert tokens is not None
        count, heads = source.shape[:2]
        values = torch.full((count, 1 + heads, len(self.names)), math.nan, device=source.device)
        total: Any = 0.0
        for images, some in parts(source):
            weights = source.compute(images, some, tokens.prefix)
            values[images, 1 + some.start : 1 + some.stop] = self._measure(weights, tokens)
            if self.all_linear:
                continue
            total = weights.sum(dim=1) + (total if some.start else 0.0)
            if some.stop == heads:
                mean = total / heads  # (b, N, N)
                values[images, 0] = self._measure(mean, tokens)
                if ROLLOUT in self.names:
                    values[images, 0, self.names.index(ROLLOUT)] = self._roll(images, mean, tokens)
        if self.all_linear:
            values[:, 0] = values[:, 1:].mean(dim=1)
        return values

    def _measure(self, weights: Tensor, tokens: Tokens) -> Tensor:
        return measure_maps(weights, self.names, tokens.grid, tokens.patch, self.spacing, self.queries)

    def _roll(self, images: slice, mean: Tensor, tokens: Tokens) -> Tensor:
        """Update the rollout of these images with the next block. Returns its globality, (b,)."""
        if self.rolled is None:
            self.rolled = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device).repeat(self.images, 1, 1)
        self.rolled[images] = rollout(mean, self.rolled[images])
        return globality(self.rolled[images], tokens.grid)
