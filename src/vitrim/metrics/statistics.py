"""Confidence intervals and verdicts: over cases, and over seeds and folds if there are several.

docs/definitions.md gives the formulas and the error rates in simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import t as student

COVERAGE = 0.95
"""Nominal coverage of every interval."""
MINIMUM_CASES = 5
"""Smallest number of cases for an interval. With fewer cases there is only the point estimate."""
VERDICT_CASES = 8
"""Smallest number of cases for a verdict. With fewer cases the verdict is "undecided"."""
TRUSTED_CASES = 10
"""With fewer cases than this, a percentile interval of nominal 95 % covers only about 80 to 90 %."""
FIRM_CASES, FIRM_SEEDS = 20, 3
"""With fewer cases, or with fewer seeds, a verdict is provisional."""
POWER = 2.8
"""Sum of the normal quantiles of 97.5 % confidence and 80 % power."""
LAST_DECIMAL = 1e-6
"""Tables hold Dice with six decimals; smaller differences are rounding."""

RESAMPLES = 10_000
"""Resamples of every bootstrap."""
CELLS = 2_000_000
"""Number of values to resample at a time, so that memory does not grow with cases and seeds."""


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
    return float(average_dice(_mean(np.stack([table.to_numpy(np.float64) for table in _seeds(cases).values()]), 0)))


def change(full: pd.DataFrame, truncated: pd.DataFrame, seed: int = 0) -> Change:
    """Compare two per-case tables (columns case, class, dice; and seed, fold, reference_voxels where known).

    A class counts in the cases whose reference has it. Let δ be a margin, and g the pseudo-value of a case and a seed:
    its share in average Dice(truncated) − (1 − δ) · average Dice(full). The network is not worse by δ if the lower
    97.5 % limit of the mean of g is above 0. One seed: bootstrap-t over cases. Several seeds: two-way t over cases and
    seeds. Several folds: t over folds, if folds differ more than cases do. Each case occurs in one fold.

    Raises ValueError if the two tables do not hold the same cases, classes and seeds.
    """
    before, after = _seeds(full), _seeds(truncated)
    if before.keys() != after.keys() or any(
        not before[s].index.equals(after[s].index) or not before[s].columns.equals(after[s].columns) for s in before
    ):
        raise ValueError("the two networks were not evaluated on the same cases, classes and seeds")
    a = np.stack([table.to_numpy(np.float64) for table in before.values()])  # (seeds, cases, classes)
    b = np.stack([table.to_numpy(np.float64) for table in after.values()])
    absent = (np.isnan(a) | np.isnan(b)).any(axis=0)  # of a class that its reference lacks, no network has a Dice
    kept = ~absent.all(axis=1)
    a, b = (np.where(absent, np.nan, values)[:, kept] for values in (a, b))
    seeds, cases = a.shape[:2]
    base = float(_mean(average_dice(a), axis=-1)) if cases else float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = float(100 * (np.float64(_mean(average_dice(b), axis=-1)) - base) / base) if cases else float("nan")
    if cases < MINIMUM_CASES or not np.isfinite(percent):
        return Change(percent, None, None, cases=cases, seeds=seeds)
    loss, level = pseudo_values(b) - pseudo_values(a), pseudo_values(a)
    folds = full.groupby("case")["fold"].first().loc[before[next(iter(before))].index[kept]] if "fold" in full else None
    low, high = _interval(loss, level, None if folds is None else folds.to_numpy(), seed)
    by_case = loss.mean(axis=0)
    return Change(percent, low, high, _effect(a, b), cases, seeds, float(by_case.std(ddof=1)) / base)


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


def limits(values: np.ndarray, folds: np.ndarray | None = None, seed: int = 0) -> tuple[float, float]:
    """Return the lower and the upper one-sided 97.5 % limit of the mean of `values` (seeds, cases).

    One seed: bootstrap-t over cases (Hesterberg 2015). Several: two-way t over cases and seeds, degrees of freedom by
    Satterthwaite. `folds` (cases,): the fold of each case, if there are several.
    """
    return _Limits(values, np.zeros_like(values), folds, seed).at(0.0)


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
    drawn = _draws(cases, seed)
    means = np.tensordot(drawn / cases, values, axes=1)  # (resamples, ...)
    low, high = np.quantile(
        means if summary is None else summary(means), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0
    )
    return low, high


def average_interval(values: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """Return the 95 % interval over cases of the average of `values` (cases, classes), by bootstrap-t.

    NaN means that a class is absent from a case, as in `average_dice`. Both ends are None with fewer than 5 cases.
    """
    values = values[~np.isnan(values).all(axis=1)]
    return limits(pseudo_values(values)[None], seed=seed) if len(values) >= MINIMUM_CASES else (None, None)


class _Limits:
    """One-sided limits of the mean of u + δ·v for any δ; u and v are (seeds, cases)."""

    def __init__(self, u: np.ndarray, v: np.ndarray, folds: np.ndarray | None, seed: int) -> None:
        self.u, self.v, self.folds = u, v, folds
        self.several = len(u) > 1
        if not self.several:
            centred = [part[0] - part.mean() for part in (u, v)]
            products = [centred[0] ** 2, centred[0] * centred[1], centred[1] ** 2]
            self.moments = _resampled_means(np.stack([*centred, *products], axis=1), seed)  # (resamples, 5)

    def at(self, margin: float) -> tuple[float, float]:
        values = self.u + margin * self.v
        centre, cases = float(values.mean()), values.shape[1]
        error, freedom = two_way_error(values) if self.several else (values[0].std(ddof=1) / np.sqrt(cases), cases - 1)
        by_fold = _fold_error(values.mean(axis=0), self.folds)
        if by_fold is not None and by_fold[0] > error:
            error, freedom = by_fold
        elif not self.several:
            return self._bootstrap_t(margin, centre, error)
        reach = float(student.ppf((1 + COVERAGE) / 2, freedom)) * error
        return centre - reach, centre + reach

    def _bootstrap_t(self, margin: float, centre: float, error: float) -> tuple[float, float]:
        u, v, uu, uv, vv = self.moments.T
        means = u + margin * v
        squares = uu + 2 * margin * uv + margin**2 * vv - means**2
        errors = np.sqrt(np.maximum(squares, 0) / (self.u.shape[1] - 1))
        # A resample of one case alone has no error: its t is beyond every quantile, unless differences are rounding.
        tiny = 1e-9 * error + LAST_DECIMAL
        scores = np.sign(means) * np.minimum(np.abs(means) / np.maximum(errors, tiny), 1e9)
        below, above = np.quantile(scores, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        return centre - float(above) * error, centre - float(below) * error


def two_way_error(values: np.ndarray) -> tuple[float, float]:
    """Return the standard error of the mean of `values` (seeds, cases), both random, and its degrees of freedom.

    V = max(MS_s + MS_c − MS_e, MS_s, MS_c) / (S·n); degrees of freedom by Satterthwaite over the three mean squares.
    """
    seeds, cases = values.shape
    by_seed, by_case, centre = values.mean(axis=1), values.mean(axis=0), values.mean()
    rest = values - by_seed[:, None] - by_case + centre
    ms_seed, ms_case = cases * by_seed.var(ddof=1), seeds * by_case.var(ddof=1)
    ms_rest = float((rest**2).sum() / ((seeds - 1) * (cases - 1)))
    largest = max(ms_seed + ms_case - ms_rest, ms_seed, ms_case)
    spread = ms_seed**2 / (seeds - 1) + ms_case**2 / (cases - 1) + ms_rest**2 / ((seeds - 1) * (cases - 1))
    freedom = largest**2 / spread if spread > 0 else cases - 1
    return float(np.sqrt(largest / (seeds * cases))), float(max(freedom, 1.0))


def _fold_error(by_case: np.ndarray, folds: np.ndarray | None) -> tuple[float, float] | None:
    """Return standard error and degrees of freedom if the folds are the sampling units; None with one fold."""
    names = [] if folds is None else list(dict.fromkeys(folds))
    if len(names) < 2:
        return None
    groups = [by_case[folds == name] for name in names]
    centre, cases = by_case.mean(), len(by_case)
    between = sum(len(group) * (group.mean() - centre) ** 2 for group in groups) / (len(names) - 1)
    return float(np.sqrt(between / cases)), len(names) - 1


def _interval(
    loss: np.ndarray, level: np.ndarray, folds: np.ndarray | None, seed: int
) -> tuple[float | None, float | None]:
    """Return the change in percent at which the lower and the upper limit of g = loss + δ·level cross 0."""
    found = _Limits(loss, level, folds, seed)
    point = -float(loss.mean()) / float(level.mean())  # the margin at which the mean of g is 0
    if max(abs(end) for end in found.at(point)) < 1e-9:
        return -100 * point, -100 * point  # all cases lose the same share
    return (
        _crossing(lambda margin: found.at(margin)[0], point, 1.0),
        _crossing(lambda margin: found.at(margin)[1], point, -1.0),
    )


def _crossing(limit: Callable[[float], float], start: float, direction: float) -> float | None:
    """Return −100·δ where `limit` crosses 0, on the side of `start` in `direction`; a fall ends at −100 %."""
    step, near = 1e-4, start
    while True:
        far = min(start + direction * step, 1.0) if direction > 0 else start + direction * step
        if limit(far) * direction > 0:
            low, high = sorted((near, far))
            return -100 * float(brentq(limit, low, high, xtol=1e-7))
        if far >= 1.0:
            return -100.0
        if step > 100:  # the full network is so poor that no ratio is known
            return None
        near, step = far, 2 * step


@lru_cache(maxsize=2)
def _draws(cases: int, seed: int) -> np.ndarray:
    """How often each case occurs in each resample, (resamples, cases)."""
    drawn = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES)
    return drawn.astype(np.int16)


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the mean over cases of `values` (cases, k) in each resample, (resamples, k)."""
    drawn = _draws(len(values), seed)
    return np.concatenate([part @ values for part in _parts(drawn)]) / len(values)


def _parts(drawn: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, CELLS // drawn.shape[1])
    for start in range(0, len(drawn), rows):
        yield drawn[start : start + rows].astype(np.float64)


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
    cases = where_reference(cases)
    if "seed" not in cases:
        cases = cases.assign(seed=0)
    return {
        seed: table.pivot(index="case", columns="class", values="dice")
        for seed, table in cases.groupby("seed", sort=True)
    }
