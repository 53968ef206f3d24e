"""Attention measures by block: means over cases with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vitrim.attention.measures import MEASURES, Measure
from vitrim.metrics.intervals import mean_interval


def measure_named(name: str) -> Measure:
    """Return the measure with this name. An unknown measure (from another version) keeps its name as title."""
    return MEASURES.get(name) or Measure(name, name.replace("_", " "), "", "", low=None)


def available(profile: pd.DataFrame) -> list[Measure]:
    """Return the measures in the profile in the order of `MEASURES`, unknown ones last.

    Of the three attention distances (mm, patches, pixels) only the first is returned.
    """
    found = set(profile["measure"])
    known = [measure for name, measure in MEASURES.items() if name in found]
    distances = [measure for measure in known if measure.is_distance]
    shown = [measure for measure in known if measure not in distances[1:]]
    return shown + [measure_named(name) for name in sorted(found - set(MEASURES))]


@dataclass(frozen=True)
class Curve:
    """A measure by block: mean over cases and, from 5 cases, a 95 % bootstrap interval."""

    blocks: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def points(self) -> list[tuple[int, float]]:
        """Pairs of block number and mean."""
        return list(zip(self.blocks, self.mean, strict=True))


def curve(profile: pd.DataFrame | None, measure: str, head: str = "mean", seed: int = 0) -> Curve | None:
    """Return the mean over cases by block, with equal weight for every case.

    None if there is no profile, or if the measure is not in it.
    """
    if profile is None:
        return None
    rows = profile[(profile["measure"] == measure) & (profile["head"].astype(str) == head)]
    if rows.empty:
        return None
    table = rows.pivot_table(index="case", columns="block", values="value", aggfunc="mean")
    values = table.to_numpy(float)
    blocks, mean = tuple(int(block) for block in table.columns), tuple(float(v) for v in np.nanmean(values, axis=0))
    ends = mean_interval(values[~np.isnan(values).any(axis=1)], seed=seed)
    return Curve(blocks, mean) if ends is None else Curve(blocks, mean, *(tuple(end.tolist()) for end in ends))
