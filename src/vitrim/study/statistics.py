"""Whether the small network is as good: paired statistics over cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MINIMUM_CASES = 5
"""With fewer cases there is no interval, only the point estimate (design, section 2)."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Change:
    """Relative change of the average Dice in percent (equation 4), with a 95 % paired bootstrap interval over cases."""

    percent: float
    low: float | None
    high: float | None

    def verdict(self, margin: float) -> str:
        """Say whether Dice fell by more than `margin` (a share: 0.05 is 5 %) of the full network's."""
        if self.low is None or self.high is None:
            return "undecided"
        if self.low > -100 * margin:
            return "not worse"
        return "worse" if self.high < -100 * margin else "undecided"


def average_dice(table: np.ndarray) -> np.ndarray:
    """Average Dice of per-case values (..., cases, classes): the mean over classes of the mean over cases.

    A case that says nothing about a class (NaN: empty in reference and prediction) is left out of that class's mean;
    a class that no case says anything about is left out of the average.
    """
    known = ~np.isnan(table)
    counts = known.sum(axis=-2)
    sums = np.where(known, table, 0.0).sum(axis=-2)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    present = ~np.isnan(means)
    total = np.where(present, means, 0.0).sum(axis=-1)
    number = present.sum(axis=-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def change(full: pd.DataFrame, truncated: pd.DataFrame, seed: int = 0) -> Change:
    """Compare two per-case tables (columns case, class, dice) of the same cases.

    Cases are drawn with replacement, the same ones for both networks. ValueError if the cases differ.
    """
    before, after = _pivot(full), _pivot(truncated)
    if not before.index.equals(after.index) or not before.columns.equals(after.columns):
        raise ValueError("the two networks were not evaluated on the same cases and classes")
    a, b = before.to_numpy(), after.to_numpy()
    percent = float(100 * (average_dice(b) - average_dice(a)) / average_dice(a))
    if len(a) < MINIMUM_CASES or not np.isfinite(percent):
        return Change(percent, None, None)
    draws = np.random.default_rng(seed).integers(len(a), size=(RESAMPLES, len(a)))
    base = average_dice(a[draws])
    # A resample in which the full network found nothing at all has no relative change.
    with np.errstate(divide="ignore", invalid="ignore"):
        changes = 100 * (average_dice(b[draws]) - base) / base
    changes = changes[np.isfinite(changes)]
    low, high = np.percentile(changes, [2.5, 97.5])
    return Change(percent, float(low), float(high))


def _pivot(cases: pd.DataFrame) -> pd.DataFrame:
    """Dice as a table of cases × classes."""
    return cases.pivot(index="case", columns="class", values="dice")
