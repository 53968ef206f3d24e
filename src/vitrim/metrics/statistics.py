"""Confidence intervals and verdicts: bootstrap intervals over cases, and over seeds if there are several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

COVERAGE = 0.95
"""Nominal coverage of every interval without correction for several comparisons."""
MINIMUM_CASES = 5
"""Smallest number of cases for an interval. With fewer cases there is only the point estimate."""
TRUSTED_CASES = 10
"""With fewer cases than this, the nominal 95 % interval covers only about 80 to 90 %."""
RESAMPLES = 10_000
"""Resamples of every bootstrap. They suffice for the tails of an interval with correction for many comparisons."""
CELLS = 2_000_000
"""Number of values to resample at a time, so that memory does not grow with cases and seeds."""


@dataclass(frozen=True)
class Change:
    """Relative change of the average Dice in percent (equation 4), with a 95 % paired bootstrap interval."""

    percent: float
    low: float | None
    high: float | None
    effect: float | None = None
    """Cohen's d for pairs: the mean of the cases' differences in Dice over their standard deviation; None if all
    differences are equal or if there is no interval."""
    resamples: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    """The change in each resample, in percent."""

    def verdict(self, margin: float, comparisons: int = 1) -> str:
        """Return "not worse", "worse" or "undecided" for a non-inferiority margin.

        `margin` is a share of the full network's Dice: 0.05 is a fall of 5 %. The whole interval must lie on one side
        of the margin; otherwise, or without an interval, the verdict is "undecided". With several `comparisons` in one
        table, the interval is wider, so that all intervals of the table hold together with 95 % (Bonferroni).
        """
        low, high = (self.low, self.high) if comparisons == 1 else self.interval((1 - COVERAGE) / comparisons)
        if low is None or high is None:
            return "undecided"
        if low > -100 * margin:
            return "not worse"
        return "worse" if high < -100 * margin else "undecided"

    def interval(self, error: float) -> tuple[float | None, float | None]:
        """Return the ends of the interval with error probability `error` (0.05: a 95 % interval), or None."""
        return percentiles(self.resamples, error)


def average_dice(table: np.ndarray) -> np.ndarray:
    """Return the average Dice of per-case values (..., cases, classes): the mean over classes of the mean over cases.

    If a class is empty in reference and prediction of a case (NaN), the mean of this class leaves the case out. If this
    holds for all cases, the average leaves the class out.
    """
    return _mean(_mean(table, axis=-2), axis=-1)


def change(full: pd.DataFrame, truncated: pd.DataFrame, seed: int = 0) -> Change:
    """Compare two per-case tables (columns case, class, dice, and seed if there are several) of the same cases.

    Each resample draws cases and training seeds with replacement, the same ones for both networks. The interval thus
    covers other cases and other trainings. Dice is averaged over the seeds of a resample, then over cases, then over
    classes. Concatenate the tables of several folds; each case occurs in one fold. Raises ValueError if the two tables
    do not hold the same cases, classes and seeds.
    """
    before, after = _seeds(full), _seeds(truncated)
    if before.keys() != after.keys() or any(
        not before[s].index.equals(after[s].index) or not before[s].columns.equals(after[s].columns) for s in before
    ):
        raise ValueError("the two networks were not evaluated on the same cases, classes and seeds")
    a = np.stack([table.to_numpy() for table in before.values()])  # (seeds, cases, classes)
    b = np.stack([table.to_numpy() for table in after.values()])
    percent = float(_relative(a, b))
    if a.shape[1] < MINIMUM_CASES or not np.isfinite(percent):
        return Change(percent, None, None)
    # A resample in which the full network has an average Dice of 0 has no relative change.
    changes = np.concatenate([_relative(a[rows], b[rows]) for rows in _resampled(a.shape, seed)])
    changes = changes[np.isfinite(changes)]
    low, high = percentiles(changes, 1 - COVERAGE)
    return Change(percent, low, high, _effect(a, b), changes)


def mean_interval(
    values: np.ndarray, *, seed: int = 0, summary: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the 95 % percentile bootstrap interval over cases of the mean of `values` (cases, ...), as two ends (...).

    `summary` maps the means of all resamples (resamples, ...) to the quantity of the interval, for example their
    maximum along the last axis. Returns None with fewer than 5 cases.
    """
    cases = len(values)
    if cases < MINIMUM_CASES:
        return None
    drawn = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES)
    means = np.tensordot(drawn / cases, values, axes=1)  # (resamples, ...)
    low, high = np.quantile(
        means if summary is None else summary(means), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0
    )
    return low, high


def average_interval(values: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """Return the 95 % bootstrap interval over cases of the average of `values` (cases, classes).

    NaN means that a class is empty in a case, as in `average_dice`. Both ends are None with fewer than 5 cases.
    """
    values = values[None]
    if values.shape[1] < MINIMUM_CASES:
        return None, None
    draws = np.concatenate([average_dice(values[rows][:, 0]) for rows in _resampled(values.shape, seed)])
    return percentiles(draws[np.isfinite(draws)], 1 - COVERAGE)


def percentiles(values: np.ndarray, error: float) -> tuple[float | None, float | None]:
    """Return the two ends between which all `values` except the share `error` lie; None without values."""
    if not len(values):
        return None, None
    low, high = np.percentile(values, [50 * error, 100 - 50 * error])
    return float(low), float(high)


def _resampled(shape: tuple[int, ...], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw indices (resamples, seeds, 1) and (resamples, 1, cases) into values (seeds, cases, classes), in parts."""
    seeds, cases, classes = shape
    generator = np.random.default_rng(seed)
    part = max(1, CELLS // (seeds * cases * classes))
    sizes = [min(part, RESAMPLES - start) for start in range(0, RESAMPLES, part)]
    return [
        (generator.integers(seeds, size=(n, seeds, 1)), generator.integers(cases, size=(n, 1, cases))) for n in sizes
    ]


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the change of the average Dice in percent from `a` to `b` (..., seeds, cases, classes)."""
    base, other = average_dice(_mean(a, axis=-3)), average_dice(_mean(b, axis=-3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (other - base) / base


def _effect(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return `Change.effect` from values (seeds, cases, classes)."""
    differences = _mean(_mean(b - a, axis=-3), axis=-1)
    differences = differences[np.isfinite(differences)]
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return float(differences.mean()) / deviation if deviation > 1e-12 else None


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean along `axis` of the values that are not NaN; NaN if all are."""
    known = ~np.isnan(values)
    number = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _seeds(cases: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """Return a table of Dice (cases × classes) for each seed."""
    if "seed" not in cases:
        cases = cases.assign(seed=0)
    return {
        seed: table.pivot(index="case", columns="class", values="dice")
        for seed, table in cases.groupby("seed", sort=True)
    }
