"""The measures of attention by block: what they are called, and their means over cases with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MINIMUM_CASES = 5
"""With fewer cases there is no interval (design, section 2)."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Measure:
    """A measure's name for people, how it reads, and the ends of its axis where they are fixed."""

    key: str
    title: str
    reads: str
    low: float | None = 0.0
    high: float | None = None


MEASURES = (
    Measure(
        "globality",
        "Globality",
        "0: each patch sees only itself. 1: it looks as far as uniform attention does.",
        0,
        1.1,
    ),
    Measure(
        "rollout_globality", "Rollout globality", "How far information can have travelled after so many blocks.", 0, 1.1
    ),
    Measure("entropy", "Entropy", "Spread of the attention. 1: every patch weighs every other alike.", 0, 1.1),
    Measure("self_share", "Self share", "Share of the attention that a patch pays to itself.", 0, None),
    Measure(
        "neighbourhood_share",
        "Neighbourhood share",
        "Share for the 8 patches around: high is like a convolution.",
        0,
        None,
    ),
    Measure(
        "proximity_correlation",
        "Proximity correlation",
        "Near 0: attention has nothing to do with distance.",
        None,
        None,
    ),
    Measure(
        "query_dependence", "Query dependence", "0: every patch looks at the same places, which is pooling.", 0, None
    ),
    Measure("distance_mm", "Attention distance, mm", "How far a patch looks, on average.", 0, None),
    Measure("distance_patches", "Attention distance, patches", "How far a patch looks, on average.", 0, None),
    Measure("distance_pixels", "Attention distance, pixels", "How far a patch looks, on average.", 0, None),
)


def named(key: str) -> Measure:
    """The measure of that name; an unknown one is shown under its own."""
    return next((measure for measure in MEASURES if measure.key == key), Measure(key, key.replace("_", " "), "", None))


def available(profile: pd.DataFrame) -> list[Measure]:
    """Measures in the profile, in the order of the list above, unknown ones last; one distance is enough."""
    found = set(profile["measure"])
    known = [measure for measure in MEASURES if measure.key in found]
    distances = [measure for measure in known if measure.key.startswith("distance_")]
    shown = [measure for measure in known if measure not in distances[1:]]
    return shown + [named(key) for key in sorted(found - {measure.key for measure in MEASURES})]


@dataclass(frozen=True)
class Curve:
    """A measure by block: mean over cases and, from 5 cases, a 95 % bootstrap interval."""

    blocks: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def points(self) -> list[tuple[int, float]]:
        """Block and mean."""
        return list(zip(self.blocks, self.mean, strict=True))


def curve(profile: pd.DataFrame | None, measure: str, head: str = "mean", seed: int = 0) -> Curve | None:
    """Mean over cases by block, every case weighing alike; None where the measure is not in the profile."""
    if profile is None:
        return None
    rows = profile[(profile["measure"] == measure) & (profile["head"].astype(str) == head)]
    if rows.empty:
        return None
    table = rows.pivot_table(index="case", columns="block", values="value", aggfunc="mean")
    values = table.to_numpy(float)
    blocks, mean = tuple(int(block) for block in table.columns), tuple(float(v) for v in np.nanmean(values, axis=0))
    if len(values) < MINIMUM_CASES:
        return Curve(blocks, mean)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.nanpercentile(np.nanmean(values[draws], axis=1), [2.5, 97.5], axis=0)
    return Curve(blocks, mean, tuple(low.tolist()), tuple(high.tolist()))


def heads(profile: pd.DataFrame | None, measure: str) -> dict[str, Curve]:
    """The same for every single head, without intervals."""
    if profile is None:
        return {}
    rows = profile[(profile["measure"] == measure) & (profile["head"].astype(str) != "mean")]
    found = {}
    for head, part in rows.groupby("head"):
        means = part.groupby("block")["value"].mean()
        found[str(head)] = Curve(tuple(int(b) for b in means.index), tuple(float(v) for v in means))
    return found
