"""Attention measures: each gives one number per map of softmax weights (..., N, N) over a grid of patches.

The grid is h × w in an image, d × h × w in a volume. Rows sum to 1. Class and register tokens are already dropped
(`AttentionCall.patches`). Attention distance follows Dosovitskiy et al. 2021 (figure 7) and Raghu et al. 2021. Rollout
follows Abnar & Zuidema 2020. docs/definitions.md has all formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from vitrim.attention.tokens import distances, mean_distance, neighbours
from vitrim.config.reading import suggestion
from vitrim.errors import ConfigurationError

Step = tuple[float, ...]
"""Distance to the next patch in pixels, or to the next pixel in mm, along each axis of the grid."""


@dataclass(frozen=True)
class MapBatch:
    """Attention maps, with their grid and the number of sampled queries."""

    weights: Tensor
    """(..., N, N); rows sum to 1"""
    grid: tuple[int, ...]
    queries: int | None
    """Number of queries that the proximity correlation uses; all if None."""

    @cached_property
    def entropies(self) -> Tensor:
        """Entropy of each map, (...)."""
        return entropy(self.weights)


@dataclass(frozen=True)
class Measure:
    """One attention measure: its name, texts, axis range and formula."""

    name: str
    """Name in tables and configurations."""
    title: str
    """Name in sentences and on axes."""
    unit: str
    reading: str
    """How to read a chart of the measure by block."""
    falls: bool = False
    """True if the measure falls when attention becomes global; False if it rises."""
    low: float | None = 0.0
    """Lower end of the axis; None if it is not fixed."""
    high: float | None = None
    linear: Callable[[tuple[int, ...], Step], Tensor] | None = None
    """For measures that are linear in the weights: table (N, N) of the factor for the weight from query i to key j."""
    compute: Callable[[MapBatch], Tensor] | None = None
    """For other measures: one value per map, (...). None for the rollout, which needs all earlier blocks."""

    @property
    def is_distance(self) -> bool:
        """True if the measure is a length in patches, pixels or mm."""
        return self.unit in ("patches", "pixels", "mm")

    @property
    def label(self) -> str:
        """Title for an axis or a heading; a length has its unit in parentheses."""
        return f"{self.title} ({self.unit})" if self.is_distance else self.title


def checked_measures(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return `names` (all if None) in the order of MEASURES. Raises ConfigurationError if a name is unknown."""
    for name in names or ():
        if name not in MEASURES:
            hint = suggestion(name, MEASURES)
            raise ConfigurationError(f"no such measure: {name!r}{hint}; choose from {', '.join(MEASURES)}")
    return tuple(name for name in MEASURES if names is None or name in names)


@lru_cache(maxsize=4)
def _table(
    names: tuple[str, ...], grid: tuple[int, ...], patch: Step, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Factors (N, N, len(names)) of the weight from query i to key j for each linear measure, divided by N."""
    tables = [MEASURES[name].linear for name in names]
    columns = [table(grid, patch) for table in tables if table is not None]
    return (torch.stack(columns, dim=-1) / len(columns[0])).to(device, dtype)


@lru_cache(maxsize=2)
def _table_in_mm(
    names: tuple[str, ...],
    grid: tuple[int, ...],
    patch: Step,
    spacing: Step,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """`_table` with distance_mm for one pixel spacing. Each case can have a different spacing."""
    table = _table(names, grid, patch, dtype, device).clone()
    step = tuple(pixels * mm for pixels, mm in zip(patch, spacing, strict=True))
    table[..., names.index("distance_mm")] = (distances(grid, step) / len(table)).to(device, dtype)
    return table


def linear_measures(
    weights: Tensor,
    names: Sequence[str],
    grid: tuple[int, ...],
    patch: Step | None = None,
    spacing: Step | None = None,
) -> Tensor:
    """Compute linear measures in one pass, as means over queries: (..., N, N) to (..., len(names)).

    `patch` is the distance from one patch to the next in pixels along each axis of the grid, by default 1. `spacing`
    is the distance from one pixel to the next in mm. Without a spacing, distance_mm is NaN.
    """
    names, patch = tuple(names), patch or (1.0,) * len(grid)
    if spacing is None or "distance_mm" not in names:
        table = _table(names, grid, patch, weights.dtype, weights.device)
    else:
        table = _table_in_mm(names, grid, patch, spacing, weights.dtype, weights.device)
    maps = weights.reshape(-1, *weights.shape[-2:])
    by_query = torch.bmm(maps.transpose(0, 1), table)  # (N, maps, names): one sum over N² terms loses digits
    return by_query.sum(dim=0).reshape(*weights.shape[:-2], len(names))


def entropy(weights: Tensor) -> Tensor:
    """Mean over queries of −Σ_j A_ij log A_ij, divided by log N: (..., N, N) to (...). 1 for uniform attention."""
    n = weights.shape[-1]
    terms = weights.clamp_min(torch.finfo(weights.dtype).tiny).log_().mul_(weights)  # 0 log 0 = 0
    return terms.sum(dim=(-2, -1)) / (-n * math.log(n))


def query_dependence(weights: Tensor, entropies: Tensor | None = None) -> Tensor:
    """Mean over queries of KL(A_i ‖ mean_k A_k), divided by log N: (..., N, N) to (...).

    It is 0 if all queries attend to the same patches. It equals the entropy of the mean row minus the mean entropy of
    the rows, so `entropies` from `entropy` can be reused.
    """
    n = weights.shape[-1]
    row = weights.mean(dim=-2)
    pooled = torch.special.entr(row).sum(dim=-1) / math.log(n)
    return (pooled - (entropy(weights) if entropies is None else entropies)).clamp_min(0.0)


def sampled_queries(tokens: int, queries: int) -> Tensor:
    """Indices of the queries that the proximity correlation uses: all, or `queries` of them, the same in every call."""
    if queries >= tokens:
        return torch.arange(tokens)
    return torch.randperm(tokens, generator=torch.Generator().manual_seed(0))[:queries].sort().values


def proximity_correlation(weights: Tensor, grid: tuple[int, ...], queries: int | None = None) -> Tensor:
    """Mean over queries of the Spearman correlation of A_ij with −‖p_i − p_j‖: (..., N, N) to (...).

    Ties share their mean rank. A query with equal weights for all patches has correlation 0. `queries` is the number
    of the N queries that are used (all if None).
    """
    n = weights.shape[-1]
    chosen = sampled_queries(n, n if queries is None else queries)
    near = _centred_ranks(-distances(grid)[chosen].float()).to(weights.device, weights.dtype)
    ranks = _centred_ranks(weights[..., chosen.to(weights.device), :])
    spread = ranks.square().sum(dim=-1) * near.square().sum(dim=-1)
    correlation = (ranks * near).sum(dim=-1) / spread.clamp_min(torch.finfo(spread.dtype).tiny).sqrt()
    return correlation.mean(dim=-1)


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis minus the mean rank. Ties share their mean rank."""
    n = values.shape[-1]
    rows = values.reshape(-1, n)
    order = _argsort(rows)
    ordered = rows.gather(1, order)
    places = torch.arange(n, dtype=values.dtype, device=values.device).expand_as(rows)
    ranks = torch.empty_like(rows).scatter_(1, order, places)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(dim=1)  # few rows: only they need the two slow searches
    first = torch.searchsorted(ordered[tied], rows[tied])
    behind_last = torch.searchsorted(ordered[tied], rows[tied], right=True)
    ranks[tied] = (first + behind_last - 1).to(values.dtype) / 2
    return (ranks - (n - 1) / 2).reshape(values.shape)


def _argsort(rows: Tensor) -> Tensor:
    """Sorting order along the last axis. On a CPU, numpy sorts several times faster than torch."""
    if rows.device.type == "cpu":
        return torch.from_numpy(np.argsort(rows.numpy(), axis=-1))
    return rows.argsort(dim=-1)


def rollout(mean_weights: Tensor, before: Tensor | None = None) -> Tensor:
    """Compute one step of attention rollout: R^l = ½(Ā^l + I) R^(l−1), (..., N, N), with R^0 = I.

    The rows of ½(Ā^l + I) are scaled to sum to 1. `mean_weights` is Ā^l, the head-averaged attention of block l.
    `before` is R^(l−1); None for the first block (Abnar & Zuidema 2020).
    """
    identity = torch.eye(mean_weights.shape[-1], dtype=mean_weights.dtype, device=mean_weights.device)
    step = (mean_weights + identity) / 2
    step = step / step.sum(dim=-1, keepdim=True)
    return step if before is None else step @ before


def globality(weights: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Attention distance divided by that of uniform attention, D / D_uniform: (..., N, N) to (...)."""
    return linear_measures(weights, ("globality",), grid)[..., 0]


def measure_maps(
    weights: Tensor,
    names: Sequence[str],
    grid: tuple[int, ...],
    patch: Step | None = None,
    spacing: Step | None = None,
    queries: int | None = None,
) -> Tensor:
    """Compute the measures `names` of each map: (..., N, N) to (..., len(names)). The rollout is NaN."""
    linear = [name for name in names if MEASURES[name].linear is not None]
    values = linear_measures(weights, linear, grid, patch, spacing) if linear else None
    if values is not None and len(linear) == len(names):
        return values
    columns = [] if values is None else list(values.unbind(dim=-1))
    found = dict(zip(linear, columns, strict=True))
    maps = MapBatch(weights, grid, queries)
    for name in names:
        compute = MEASURES[name].compute
        if compute is not None:
            found[name] = compute(maps)
        elif name not in found:
            found[name] = weights.new_full(weights.shape[:-2], math.nan)
    return torch.stack([found[name] for name in names], dim=-1)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "globality",
            "globality",
            "of uniform attention",
            "0: each patch attends only to itself. 1: it attends as far as uniform attention does.",
            high=1.1,
            linear=lambda grid, patch: distances(grid) / mean_distance(grid),
        ),
        Measure(
            "rollout_globality",
            "globality of the rollout",
            "of uniform attention",
            "How far information can have travelled up to this block (attention rollout).",
            high=1.1,
        ),
        Measure(
            "entropy",
            "entropy",
            "of uniform attention",
            "Spread of the attention. 1: every patch gives the same weight to all patches.",
            high=1.1,
            compute=lambda maps: maps.entropies,
        ),
        Measure(
            "self_share",
            "share of the patch itself",
            "",
            "Share of the attention that a patch pays to itself.",
            falls=True,
            linear=lambda grid, patch: torch.eye(math.prod(grid), dtype=torch.float64),
        ),
        Measure(
            "neighbourhood_share",
            "share of the neighbours",
            "",
            "Share of the attention for the 8 patches around a patch (in a volume 26). High: like a convolution.",
            falls=True,
            linear=lambda grid, patch: neighbours(grid),
        ),
        Measure(
            "proximity_correlation",
            "correlation with proximity",
            "Spearman",
            "Near 0: attention does not depend on distance.",
            falls=True,
            low=None,
            compute=lambda maps: proximity_correlation(maps.weights, maps.grid, maps.queries),
        ),
        Measure(
            "query_dependence",
            "query dependence",
            "of log N",
            "0: every patch attends to the same places, which is pooling.",
            compute=lambda maps: query_dependence(maps.weights, maps.entropies),
        ),
        Measure(
            "distance_mm",
            "attention distance",
            "mm",
            "Mean distance between a patch and what it attends to.",
            # `_table_in_mm` replaces NaN, because each case has its own spacing
            linear=lambda grid, patch: torch.full_like(distances(grid), math.nan),
        ),
        Measure(
            "distance_patches",
            "attention distance",
            "patches",
            "Mean distance between a patch and what it attends to.",
            linear=lambda grid, patch: distances(grid),
        ),
        Measure(
            "distance_pixels",
            "attention distance",
            "pixels",
            "Mean distance between a patch and what it attends to.",
            linear=lambda grid, patch: distances(grid, patch),
        ),
    )
}
"""Every measure by name, in the order of tables and figures. To add a measure, add a row here.

`vitrim.config.names.DecidingMeasure` also lists each measure that can decide the depth.
"""
