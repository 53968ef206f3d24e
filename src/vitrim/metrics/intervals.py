"""Intervals and one-sided limits of a mean over cases, and over seeds and folds if there are several.

A resample is a number for each case: how often it was drawn. So the means of all resamples are one matrix product.
docs/definitions.md gives the formulas and the error rates in simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

COVERAGE = 0.95
"""Nominal coverage of every interval."""
MINIMUM_CASES = 5
"""Smallest number of cases for an interval. With fewer cases there is only the point estimate."""
TRUSTED_CASES = 10
"""With fewer cases than this, a percentile interval of nominal 95 % covers only about 80 to 90 %."""
LAST_DECIMAL = 1e-6
"""Tables hold Dice with six decimals; smaller differences are rounding."""

RESAMPLES = 10_000
"""Resamples of every bootstrap."""
CELLS = 2_000_000
"""Number of values to resample at a time, so that memory does not grow with cases and seeds."""


def limits(values: np.ndarray, folds: np.ndarray | None = None, seed: int = 0) -> tuple[float, float]:
    """Return the lower and the upper one-sided 97.5 % limit of the mean of `values` (seeds, cases).

    One seed: bootstrap-t over cases (Hesterberg 2015). Several: two-way t over cases and seeds, degrees of freedom by
    Satterthwaite. `folds` (cases,): the fold of each case, if there are several.
    """
    low, high = _Limits(values, np.zeros_like(values), folds, seed).at(0.0)
    return low, high


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


class _Limits:
    """One-sided limits of the mean of u + δ·v for any δ; u and v are (seeds, cases)."""

    def __init__(self, u: np.ndarray, v: np.ndarray, folds: np.ndarray | None, seed: int) -> None:
        self.u, self.v, self.folds = u, v, folds
        self.several = len(u) > 1
        if not self.several:
            centred = [part[0] - part.mean() for part in (u, v)]
            products = [centred[0] ** 2, centred[0] * centred[1], centred[1] ** 2]
            means = _resampled_means(np.stack([*centred, *products], axis=1), seed)
            self.moments = np.ascontiguousarray(means.T)  # (5, resamples)

    def at(self, margin: float, sides: tuple[int, ...] = (-1, 1)) -> list[float]:
        """Return the lower (−1) and the upper (1) limit, or one of them, at δ = `margin`."""
        values = self.u + margin * self.v
        centre, cases = float(values.mean()), values.shape[1]
        error, freedom = two_way_error(values) if self.several else (values[0].std(ddof=1) / np.sqrt(cases), cases - 1)
        by_fold = _fold_error(values.mean(axis=0), self.folds)
        if by_fold is not None and by_fold[0] > error:
            error, freedom = by_fold
        elif not self.several:
            return self._bootstrap_t(margin, centre, error, sides)
        reach = float(stdtrit(freedom, (1 + COVERAGE) / 2)) * error
        return [centre + side * reach for side in sides]

    def _bootstrap_t(self, margin: float, centre: float, error: float, sides: tuple[int, ...]) -> list[float]:
        u, v, uu, uv, vv = self.moments
        means = u + margin * v
        squares = uu + 2 * margin * uv + margin**2 * vv - means**2
        errors = np.sqrt(np.maximum(squares, 0) / (self.u.shape[1] - 1))
        # A resample of one case alone has no error: its t is beyond every quantile, unless differences are rounding.
        tiny = 1e-9 * error + LAST_DECIMAL
        scores = np.sign(means) * np.minimum(np.abs(means) / np.maximum(errors, tiny), 1e9)
        quantiles = np.quantile(scores, [(1 - side * COVERAGE) / 2 for side in sides])
        return [centre - float(score) * error for score in quantiles]


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


def ratio_interval(
    loss: np.ndarray, level: np.ndarray, folds: np.ndarray | None, seed: int
) -> tuple[float | None, float | None]:
    """Return the change in percent at which the lower and the upper limit of g = loss + δ·level cross 0.

    `loss` and `level` are (seeds, cases), as in `limits`. The same values are resampled once, however often they are
    asked for.
    """
    names = None if folds is None else tuple(folds.tolist())
    return _ratio_interval(loss.tobytes(), level.tobytes(), len(loss), names, seed)


@lru_cache(maxsize=4096)
def _ratio_interval(
    loss: bytes, level: bytes, seeds: int, folds: tuple[Hashable, ...] | None, seed: int
) -> tuple[float | None, float | None]:
    u, v = (np.frombuffer(part).reshape(seeds, -1) for part in (loss, level))
    found = _Limits(u, v, None if folds is None else np.array(folds), seed)
    point = -float(u.mean()) / float(v.mean())  # the margin at which the mean of g is 0
    if max(abs(end) for end in found.at(point)) < 1e-9:
        return -100 * point, -100 * point  # all cases lose the same share
    return _crossing(found, -1, point), _crossing(found, 1, point)


def _crossing(found: _Limits, side: int, start: float) -> float | None:
    """Return −100·δ where the limit of this side crosses 0, searched from `start`; a fall ends at −100 %."""
    direction = -side

    def limit(margin: float) -> float:
        return found.at(margin, (side,))[0]

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
