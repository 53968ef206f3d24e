"""Attention of a model over many images, measured while batches stream through and never kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.grid import find_grid, patches_only
from vitrim.attention.measures import checked_measures, globality, measure_maps, rollout
from vitrim.attention.record import AttentionProfile
from vitrim.attention.running import batches, run_captured
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

    Args:
        model: any network whose attention `capture_attention` sees; it runs in eval mode, and its mode is put back.
        images: a tensor (B, C, H, W), each image a case; or an iterable of (case id, images (S, C, H, W), pixel spacing
            (row_mm, column_mm) or None), S slices of one case; or a loader of tensors, of dictionaries with "image", or
            of tuples that begin with the images, each image a case.
        grid: token grid (h, w); by default what the model says of itself, or what fits the image.
        prefix_tokens: class and register tokens before the patches, dropped; by default what is left over by the grid.
        cases: ids for the images of a tensor; images with the same id are slices of one case.
        spacing: mm from one pixel of the image to the next (rows, columns), where `images` does not say.
        patch: pixels from one patch to the next; by default the image's size over the grid.
        measures: names out of `MEASURES`; all by default.
        layers: patterns of the attention layers that count as blocks; all by default.
        queries: how many queries the proximity correlation looks at.
        progress: called with the number of images done, after each batch.

    Raises:
        InputError: if nothing was captured, the tokens fit no grid, attention is windowed, hierarchical or to other
            tokens than the image's, it is not finite, or the model cannot take the images.
    """
    names = checked_measures(measures)
    stream = _Stream(model, names, grid, prefix_tokens, patch, queries)
    for case_ids, batch, mm in batches(images, cases, spacing, batch_size):
        stream.run(model, case_ids, batch, mm, layers)
        if progress is not None:
            progress(stream.images)
    return stream.profile()


class _Stream:
    """What has been measured so far: sums per case, and nothing else."""

    def __init__(
        self,
        model: nn.Module,
        names: tuple[str, ...],
        grid: tuple[int, int] | None,
        prefix_tokens: int | None,
        patch: float | tuple[float, float] | None,
        queries: int,
    ) -> None:
        self.model, self.names, self.queries = model, names, queries
        self.asked = (grid, prefix_tokens, patch)
        self.sums: dict[str, list[np.ndarray]] = {}
        self.counts: dict[str, int] = {}
        self.images = 0
        self.layers: tuple[str, ...] = ()
        self.tokens = 0
        self.grid, self.prefix, self.patch = (0, 0), 0, (0.0, 0.0)

    def run(
        self,
        model: nn.Module,
        case_ids: list[str],
        batch: Tensor,
        spacing: tuple[float, float] | None,
        layers: str | Sequence[str] | None,
    ) -> None:
        rolled: Tensor | None = None

        def reduce(call: AttentionCall) -> Tensor:
            nonlocal rolled
            self._check(call, batch)
            weights = patches_only(call.weights, self.prefix)
            mean = weights.mean(dim=1, keepdim=True)
            arguments = (self.names, self.grid, self.patch, spacing, self.queries)
            values = torch.cat([measure_maps(mean, *arguments), measure_maps(weights, *arguments)], dim=1)
            if "rollout_globality" in self.names:
                rolled = rollout(mean[:, 0], rolled)
                values[:, 0, self.names.index("rollout_globality")] = globality(rolled, self.grid)
            return values  # (B, 1 + heads, measures)

        captured = run_captured(model, batch, reduce, layers)
        seen = tuple(layer for layer, _ in captured.calls)
        if self.layers and seen != self.layers:
            raise InputError(
                f"the model ran {len(seen)} attention layers for one batch and {len(self.layers)} before it"
            )
        self.layers = seen
        for block, values in enumerate(captured.results):
            array = values.double().cpu().numpy()
            self._check_finite(array, block, case_ids)
            for case, row in zip(case_ids, array, strict=True):
                self.sums.setdefault(case, [])
                if len(self.sums[case]) <= block:
                    self.sums[case].append(np.zeros_like(row))
                self.sums[case][block] += row
        for case in case_ids:
            self.counts[case] = self.counts.get(case, 0) + 1
        self.images += len(case_ids)

    def _check(self, call: AttentionCall, batch: Tensor) -> None:
        """Attention must be of every image to itself, over one grid of tokens that all layers share."""
        images, _, queries, keys = call.weights.shape
        layer = f"attention layer {call.layer!r}"
        if queries != keys:
            raise InputError(
                f"{layer} has {queries} queries and {keys} keys: only self-attention over patches can be measured; "
                "say which layers to look at with layers="
            )
        if images != len(batch):
            raise InputError(
                f"{layer} has {images} maps per head for {len(batch)} images: windowed attention (as Swin's) "
                "is not over the image's grid and is not measured"
            )
        if self.tokens and queries != self.tokens:
            raise InputError(
                f"{layer} has {queries} tokens and another one {self.tokens}: attention over grids of several sizes "
                "(hierarchical networks) is not measured; say which layers to look at with layers="
            )
        if not self.tokens:
            grid, prefix, patch = self.asked
            size = (int(batch.shape[-2]), int(batch.shape[-1]))
            self.grid, self.prefix = find_grid(queries, size, model=self.model, grid=grid, prefix_tokens=prefix)
            if patch is None:
                self.patch = (size[0] / self.grid[0], size[1] / self.grid[1])
            else:
                self.patch = (float(patch), float(patch)) if isinstance(patch, (int, float)) else patch
            self.tokens = queries

    def _check_finite(self, array: np.ndarray, block: int, case_ids: list[str]) -> None:
        known = [i for i, name in enumerate(self.names) if name not in ("rollout_globality", "distance_mm")]
        bad = ~np.isfinite(array[..., known]).all(axis=(1, 2))
        if bad.any():
            case = case_ids[int(bad.argmax())]
            raise InputError(f"attention in block {block + 1} is not finite for case {case}: look for NaN in the image")

    def profile(self) -> AttentionProfile:
        if not self.images:
            raise InputError("there are no images to look at")
        cases = tuple(self.sums)
        heads = tuple(len(block) - 1 for block in self.sums[cases[0]])
        values = np.full((len(cases), len(heads), 1 + max(heads), len(self.names)), math.nan)
        for i, case in enumerate(cases):
            for block, total in enumerate(self.sums[case]):
                values[i, block, : len(total)] = total / self.counts[case]
        return AttentionProfile(
            cases=cases,
            slices=tuple(self.counts[case] for case in cases),
            layers=self.layers,
            heads=heads,
            measures=self._present(values),
            values=values[..., [self.names.index(name) for name in self._present(values)]],
            grid=self.grid,
            prefix_tokens=self.prefix,
            patch=self.patch,
            queries=min(self.queries, self.grid[0] * self.grid[1]),
        )

    def _present(self, values: np.ndarray) -> tuple[str, ...]:
        """Measures with a value anywhere: mm goes where no spacing is known."""
        return tuple(name for i, name in enumerate(self.names) if not np.isnan(values[..., i]).all())
