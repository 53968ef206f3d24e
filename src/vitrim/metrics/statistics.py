"""The average Dice, its change between two networks, and the verdict on it.

docs/definitions.md gives the formulas and the error rates in simulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd

from vitrim.metrics.intervals import MINIMUM_CASES, limits, ratio_interval

VERDICT_CASES = 8
"""Smallest number of cases for a verdict. With fewer cases the verdict is "undecided"."""
FIRM_CASES, FIRM_SEEDS = 20, 3
"""With fewer cases, or with fewer seeds, a verdict is provisional."""
POWER = 2.8
"""Sum of the normal quantiles of 97.5 % confidence and 80 % power."""


@dataclass(frozen=True)
class Change:
    """Relative change of the average Dice in percent (equation 4), with its 95 % interval.

    Both ends of the interval are one-sided limits of 97.5 %. The lower end is the largest fall that the cases and
    seeds do not rule out: a network is "not worse by δ" exactly if the interval lies above −δ.
    """

    percent: float
    low: float | None
    high: float | None
    effect: float | None = None
    """Cohen's d for pairs: the mean of the cases' differences in Dice over their standard deviation; None if all
    differences are equal or if there is no interval."""
    cases: int = VERDICT_CASES
    """Cases with at least one class in their reference."""
    seeds: int = 1
    deviation: float | None = None
    """Standard deviation over cases of the difference in Dice, divided by the full network's average Dice."""

    def verdict(self, margin: float) -> str:
        """Return "not worse", "worse" or "undecided" for a non-inferiority margin.

        `margin` is a share of the full network's Dice: 0.05 is a fall of 5 %. The whole interval must lie on one side
        of the margin. Otherwise, or with fewer than 8 cases, the verdict is "undecided".
        """
        if self.cases < VERDICT_CASES:
            return "undecided"
        if self.low is not None and self.low > -100 * margin:
            return "not worse"
        return "worse" if self.high is not None and self.high < -100 * margin else "undecided"

    @property
    def provisional(self) -> bool:
        """True if the verdict rests on fewer than 20 cases or fewer than 3 seeds."""
        return self.cases < FIRM_CASES or self.seeds < FIRM_SEEDS

    def cases_needed(self, margin: float) -> int | None:
        """Return how many cases show "not worse by `margin`" with 80 % power, if nothing is lost.

        n = (2.8 · SD / margin)², at least 8. SD is `deviation`; None if it is unknown.
        """
        return None if self.deviation is None else max(VERDICT_CASES, ceil((POWER * self.deviation / margin) ** 2))


def in_sequence(verdicts: Sequence[str]) -> list[str]:
    """Return the verdicts of several depths, given from deep to shallow, as a fixed sequence of tests (Maurer 1995).

    Each depth is tested at the full level, but only while all deeper ones are "not worse". After the first depth that
    is not, "not worse" becomes "undecided". So the chance of one wrong "not worse" in the sequence stays 2.5 %.
    """
    held, found = True, []
    for verdict in verdicts:
        found.append("undecided" if verdict == "not worse" and not held else verdict)
        held = held and verdict == "not worse"
    return found


def average_dice(table: np.ndarray) -> np.ndarray:
    """Return the average Dice of per-case values (..., cases, classes): the mean over classes of the mean over cases.

    If a class is absent from a case (NaN), the mean of this class leaves the case out. If it is absent from all cases,
    the average leaves the class out.
    """
    return _mean(_mean(table, axis=-2), axis=-1)


def network_dice(cases: pd.DataFrame) -> float:
    """Return the average Dice of a per-case table (columns case, class, dice), over cases whose reference has a class.

    The value of a case is its mean over seeds.
    """
    return float(average_dice(_mean(_dice_table(cases).values, axis=0)))


def case_dice(cases: pd.DataFrame) -> pd.Series:
    """Return the Dice of each case, averaged over the classes that its reference has, the best case first.

    Cases without any class are left out.
    """
    means = where_reference(cases).groupby("case")["dice"].mean()
    return means.dropna().sort_values(ascending=False, kind="stable")


def change(full: pd.DataFrame, truncated: pd.DataFrame, seed: int = 0) -> Change:
    """Compare two per-case tables (columns case, class, dice; and seed, fold, reference_voxels where known).

    A class counts in the cases whose reference has it. Let δ be a margin, and g the pseudo-value of a case and a seed:
    its share in average Dice(truncated) − (1 − δ) · average Dice(full). The network is not worse by δ if the lower
    97.5 % limit of the mean of g is above 0. One seed: bootstrap-t over cases. Several seeds: two-way t over cases and
    seeds. Several folds: t over folds, if folds differ more than cases do. Each case occurs in one fold.

    Raises ValueError if the two tables do not hold the same cases, classes and seeds.
    """
    pair = _Pair.of(full, truncated)
    a, b = pair.full, pair.truncated
    seeds, cases = a.shape[:2]
    percent = pair.percent
    if cases < MINIMUM_CASES or not np.isfinite(percent):
        return Change(percent, None, None, cases=cases, seeds=seeds)
    loss, level = pseudo_values(b) - pseudo_values(a), pseudo_values(a)
    low, high = ratio_interval(loss, level, pair.folds, seed)
    deviation = float(loss.mean(axis=0).std(ddof=1)) / pair.base
    return Change(percent, low, high, _effect(a, b), cases, seeds, deviation)


def change_percent(full: pd.DataFrame, truncated: pd.DataFrame) -> float:
    """Return `change(full, truncated).percent` without an interval, so without resampling."""
    return _Pair.of(full, truncated).percent


def where_reference(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the per-case table with NaN instead of every metric of a class that the case's reference lacks.

    A class counts in the cases whose reference has it; a false positive elsewhere does not make its Dice 0. The number
    of such cases is counted apart (`false_positives`). A table without `reference_voxels` is returned unchanged.
    """
    if "reference_voxels" not in cases:
        return cases
    metrics = [name for name in ("dice", "hd95", "surface_dice") if name in cases]
    return cases.assign(**{name: cases[name].where(cases["reference_voxels"] > 0) for name in metrics})


def false_positives(cases: pd.DataFrame) -> dict[str, int]:
    """Return for each class the number of cases that lack it in the reference but have it in a prediction."""
    wrong = cases[(cases["reference_voxels"] == 0) & (cases["predicted_voxels"] > 0)]
    return {str(name): int(wrong.loc[wrong["class"] == name, "case"].nunique()) for name in cases["class"].unique()}


def pseudo_values(table: np.ndarray) -> np.ndarray:
    """Return jackknife pseudo-values (..., cases) of the average Dice of `table` (..., cases, classes).

    n·T − (n − 1)·T(without the case). Their mean is the average Dice T. If every case has every class, it is the mean
    Dice of the case over classes. A class that only one case has adds no spread.
    """
    known = ~np.isnan(table)
    number, mean = known.sum(axis=-2, keepdims=True), _mean(table, axis=-2)[..., None, :]
    weight = (table.shape[-2] - 1) / np.maximum(number - 1, 1)
    return _mean(mean + np.where(known, table - mean, 0.0) * weight, axis=-1)


def average_interval(values: np.ndarray, seed: int = 0, most: float | None = None) -> tuple[float | None, float | None]:
    """Return the 95 % interval over cases of the average of `values` (cases, classes), by bootstrap-t.

    NaN means that a class is absent from a case, as in `average_dice`. Both ends are None with fewer than 5 cases. An
    average is not below 0 and not above `most`, if that is given; the interval ends there.
    """
    values = values[~np.isnan(values).all(axis=1)]
    if len(values) < MINIMUM_CASES:
        return None, None
    low, high = limits(pseudo_values(values)[None], seed=seed)
    if low is not None:
        low = max(low, 0.0)
    if high is not None and most is not None:
        high = min(high, most)
    return low, high


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


@dataclass(frozen=True)
class _DiceTable:
    """Dice of a per-case table as an array; NaN if the reference lacks the class."""

    seeds: pd.Index
    cases: pd.Index
    classes: pd.Index
    values: np.ndarray
    """(seeds, cases, classes)"""
    folds: np.ndarray | None
    """(cases,)"""


def _dice_table(cases: pd.DataFrame) -> _DiceTable:
    """Raises ValueError if the table is empty, has a row twice, or if its seeds differ in cases or classes."""
    dice = cases["dice"].to_numpy(np.float64)
    if "reference_voxels" in cases:
        dice = np.where(cases["reference_voxels"].to_numpy() > 0, dice, np.nan)
    seed = cases["seed"] if "seed" in cases else pd.Series(0, index=cases.index)
    columns = (seed, cases["case"], cases["class"])
    places, names = zip(*(pd.factorize(each, sort=True, use_na_sentinel=False) for each in columns), strict=True)
    values = np.full([len(each) for each in names], np.nan)
    known = np.zeros(values.shape, bool)
    values[places], known[places] = dice, True
    if not known.any(axis=2).all() or not known.any(axis=1).all() or known.sum() != len(dice) or not len(dice):
        raise ValueError("the seeds of the per-case table do not hold the same cases and classes, each once")
    folds = None
    if "fold" in cases:
        folds = cases["fold"].to_numpy()[np.unique(places[1], return_index=True)[1]]
    return _DiceTable(names[0], names[1], names[2], values, folds)


@dataclass(frozen=True)
class _Pair:
    """Dice of two networks (seeds, cases, classes) on the cases that have a class in their reference."""

    full: np.ndarray
    truncated: np.ndarray
    folds: np.ndarray | None

    @classmethod
    def of(cls, full: pd.DataFrame, truncated: pd.DataFrame) -> _Pair:
        """Raises ValueError if the two tables do not hold the same cases, classes and seeds."""
        before, after = _dice_table(full), _dice_table(truncated)
        if not all(getattr(before, name).equals(getattr(after, name)) for name in ("seeds", "cases", "classes")):
            raise ValueError("the two networks were not evaluated on the same cases, classes and seeds")
        # Of a class that its reference lacks, no network has a Dice.
        absent = (np.isnan(before.values) | np.isnan(after.values)).any(axis=0)
        kept = ~absent.all(axis=1)
        a, b = (np.where(absent, np.nan, table.values)[:, kept] for table in (before, after))
        return cls(a, b, None if before.folds is None else before.folds[kept])

    @property
    def base(self) -> float:
        """Average Dice of the full network; NaN without cases."""
        return _average(self.full)

    @property
    def percent(self) -> float:
        """Change of the average Dice in percent; NaN without cases."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(100 * (np.float64(_average(self.truncated)) - self.base) / self.base)


def _average(values: np.ndarray) -> float:
    """Mean over seeds of the average Dice of `values` (seeds, cases, classes); NaN without cases."""
    return float(_mean(average_dice(values), axis=-1)) if values.shape[1] else float("nan")


def signed(value: float) -> str:
    """Return a change in percent with its sign and one digit; a change that rounds to nothing has none."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
