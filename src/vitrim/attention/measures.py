"""The measures of attention: each a number per map, from softmax weights (..., N, N) over an h × w grid of patches.

Rows sum to 1, class and register tokens are dropped already (`AttentionCall.patches`). Attention distance follows
Dosovitskiy et al. 2021 (figure 7) and Raghu et al. 2021; rollout Abnar & Zuidema 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vitrim.attention.grid import distances, mean_distance, neighbours
from vitrim.errors import InputError


@dataclass(frozen=True)
class Measure:
    """What a measure is called on an axis, and how it moves."""

    name: str
    title: str
    unit: str
    falls: bool = False
    """Whether it falls, rather than rises, as attention becomes global."""


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("globality", "globality", "of uniform attention"),
        Measure("distance_patches", "attention distance", "patches"),
        Measure("distance_pixels", "attention distance", "pixels"),
        Measure("distance_mm", "attention distance", "mm"),
        Measure("self_share", "share of the patch itself", "", falls=True),
        Measure("neighbourhood_share", "share of the 8 neighbours", "", falls=True),
        Measure("proximity_correlation", "correlation with proximity", "Spearman", falls=True),
        Measure("entropy", "entropy", "of uniform attention"),
        Measure("query_dependence", "query dependence", "of log N"),
        Measure("rollout_globality", "globality of the rollout", "of uniform attention"),
    )
}
"""Every measure by the name that it has in `profile.csv`, in the order of the columns."""

Step = tuple[float, float]
"""From one place to the next along rows and along columns: a patch in pixels, or a pixel in mm."""

LINEAR = ("globality", "distance_patches", "distance_pixels", "distance_mm", "self_share", "neighbourhood_share")


def checked_measures(names: Sequence[str] | None) -> tuple[str, ...]:
    """`names` (all by default) in the order of MEASURES; InputError names one that is not there."""
    for name in names or ():
        if name not in MEASURES:
            raise InputError(f"no such measure: {name!r}; there are {', '.join(MEASURES)}")
    return tuple(name for name in MEASURES if names is None or name in names)


@lru_cache(maxsize=4)
def _table(
    names: tuple[str, ...], grid: tuple[int, int], patch: Step, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(N, N, len(names)): what a weight from query i to key j adds to each measure that is linear in the weights."""
    d = distances(grid)
    tables = {
        "globality": lambda: d / mean_distance(grid),
        "distance_patches": lambda: d,
        "distance_pixels": lambda: distances(grid, patch),
        "distance_mm": lambda: torch.full_like(d, math.nan),
        "self_share": lambda: torch.eye(len(d), dtype=d.dtype),
        "neighbourhood_share": lambda: neighbours(grid),
    }
    return torch.stack([tables[name]() / len(d) for name in names], dim=-1).to(device, dtype)


@lru_cache(maxsize=2)
def _table_in_mm(
    names: tuple[str, ...],
    grid: tuple[int, int],
    patch: Step,
    spacing: Step,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The same with the millimetres of one spacing, which every case has of its own."""
    table = _table(names, grid, patch, dtype, device).clone()
    step = (patch[0] * spacing[0], patch[1] * spacing[1])
    table[..., names.index("distance_mm")] = (distances(grid, step) / len(table)).to(device, dtype)
    return table


def linear_measures(
    weights: Tensor,
    names: Sequence[str],
    grid: tuple[int, int],
    patch: Step = (1.0, 1.0),
    spacing: Step | None = None,
) -> Tensor:
    """Measures out of LINEAR, means over queries: (..., N, N) to (..., len(names)), in one pass.

    `patch`: pixels from one patch to the next (rows, columns); `spacing`: mm from one pixel to the next; without it
    distance_mm is NaN.
    """
    names = tuple(names)
    if spacing is None or "distance_mm" not in names:
        table = _table(names, grid, patch, weights.dtype, weights.device)
    else:
        table = _table_in_mm(names, grid, patch, spacing, weights.dtype, weights.device)
    maps = weights.reshape(-1, *weights.shape[-2:])
    by_query = torch.bmm(maps.transpose(0, 1), table)  # (N, maps, names): a sum over N² at once would lose digits
    return by_query.sum(dim=0).reshape(*weights.shape[:-2], len(names))


def entropy(weights: Tensor) -> Tensor:
    """Mean over queries of −Σ_j A_ij log A_ij, in units of log N: (..., N, N) to (...). 1 for uniform attention."""
    n = weights.shape[-1]
    terms = weights.clamp_min(torch.finfo(weights.dtype).tiny).log_().mul_(weights)  # 0 log 0 = 0
    return terms.sum(dim=(-2, -1)) / (-n * math.log(n))


def query_dependence(weights: Tensor, entropies: Tensor | None = None) -> Tensor:
    """Mean over queries of KL(A_i ‖ mean_i A_i), in units of log N: (..., N, N) to (...); 0 where all see the same.

    It equals the entropy of the mean row less the mean entropy of the rows, and so is had from `entropy` for free.
    """
    n = weights.shape[-1]
    row = weights.mean(dim=-2)  # what is seen on average
    pooled = torch.special.entr(row).sum(dim=-1) / math.log(n)
    return (pooled - (entropy(weights) if entropies is None else entropies)).clamp_min(0.0)


def sampled_queries(tokens: int, queries: int) -> Tensor:
    """Which queries the proximity correlation looks at: all, or `queries` of them, the same ones at every call."""
    if queries >= tokens:
        return torch.arange(tokens)
    return torch.randperm(tokens, generator=torch.Generator().manual_seed(0))[:queries].sort().values


def proximity_correlation(weights: Tensor, grid: tuple[int, int], queries: int | None = None) -> Tensor:
    """Mean over queries of the Spearman correlation of A_ij with −‖p_i − p_j‖: (..., N, N) to (...).

    Ties share their mean rank; a query that attends to all patches alike has correlation 0. `queries` looks at that
    many of the N queries only (all by default).
    """
    n = weights.shape[-1]
    chosen = sampled_queries(n, n if queries is None else queries)
    near = _centred_ranks(-distances(grid)[chosen].float()).to(weights.device, weights.dtype)
    ranks = _centred_ranks(weights[..., chosen.to(weights.device), :])
    spread = ranks.square().sum(dim=-1) * near.square().sum(dim=-1)
    correlation = (ranks * near).sum(dim=-1) / spread.clamp_min(torch.finfo(spread.dtype).tiny).sqrt()
    return correlation.mean(dim=-1)


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis, ties sharing their mean rank, less the mean of all ranks."""
    n = values.shape[-1]
    rows = values.reshape(-1, n)
    order = _argsort(rows)
    ordered = rows.gather(1, order)
    places = torch.arange(n, dtype=values.dtype, device=values.device).expand_as(rows)
    ranks = torch.empty_like(rows).scatter_(1, order, places)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(dim=1)  # few rows: only these are worth two searches
    first = torch.searchsorted(ordered[tied], rows[tied])
    behind_last = torch.searchsorted(ordered[tied], rows[tied], right=True)
    ranks[tied] = (first + behind_last - 1).to(values.dtype) / 2
    return (ranks - (n - 1) / 2).reshape(values.shape)


def _argsort(rows: Tensor) -> Tensor:
    """Order along the last axis; numpy's sort is several times faster than torch's on a processor."""
    if rows.device.type == "cpu":
        return torch.from_numpy(np.argsort(rows.numpy(), axis=-1))
    return rows.argsort(dim=-1)


def rollout(mean_weights: Tensor, before: Tensor | None = None) -> Tensor:
    """One step of attention rollout: R^l = ½(Ā^l + I) R^(l−1), rows renormalised, (..., N, N); R^0 = I.

    mean_weights: head-averaged attention of block l; before: R^(l−1) (Abnar & Zuidema 2020).
    """
    identity = torch.eye(mean_weights.shape[-1], dtype=mean_weights.dtype, device=mean_weights.device)
    step = (mean_weights + identity) / 2
    step = step / step.sum(dim=-1, keepdim=True)
    return step if before is None else step @ before


def globality(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Attention distance over that of uniform attention, D / D_uniform: (..., N, N) to (...)."""
    return linear_measures(weights, ("globality",), grid)[..., 0]


def measure_maps(
    weights: Tensor,
    names: Sequence[str],
    grid: tuple[int, int],
    patch: Step = (1.0, 1.0),
    spacing: Step | None = None,
    queries: int | None = None,
) -> Tensor:
    """All of `names` but the rollout for each map: (..., N, N) to (..., len(names)), NaN in the rollout's place."""
    values = weights.new_full((*weights.shape[:-2], len(names)), math.nan)
    linear = [name for name in names if name in LINEAR]
    if linear:
        values[..., [names.index(name) for name in linear]] = linear_measures(weights, linear, grid, patch, spacing)
    if "entropy" in names or "query_dependence" in names:
        spread = entropy(weights)
        if "entropy" in names:
            values[..., names.index("entropy")] = spread
        if "query_dependence" in names:
            values[..., names.index("query_dependence")] = query_dependence(weights, spread)
    if "proximity_correlation" in names:
        values[..., names.index("proximity_correlation")] = proximity_correlation(weights, grid, queries)
    return values
