"""Finds the smallest depth by accuracy: the blocks that a network needs to stay within a tolerated loss of Dice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitrim.errors import InputError
from vitrim.metrics.statistics import VERDICT_CASES, Change, change


@dataclass(frozen=True)
class DepthTrial:
    """A depth that was tried, and its result."""

    depth: int
    change: Change
    enough: bool
    seconds: float
    """Time to make and evaluate this network."""

    def as_json(self) -> dict[str, Any]:
        """Return the trial as JSON content."""
        names = ("percent", "low", "high", "effect")
        change = {name: getattr(self.change, name) for name in names}
        return {"depth": self.depth, **change, "enough": self.enough, "seconds": round(self.seconds, 2)}


@dataclass(frozen=True)
class DepthSearch:
    """The smallest depth whose loss of Dice is within the tolerance, with all depths that were tried."""

    depth: int
    tolerance: float
    cases: int
    trials: tuple[DepthTrial, ...]

    def sentence(self) -> str:
        """Return the result as a sentence."""
        plural = "s" if self.depth != 1 else ""
        tried = ", ".join(f"{t.depth} ({t.change.percent:+.2f} %)" for t in self.trials)
        return (
            f"by accuracy: {self.depth} block{plural}, the smallest depth found that is not worse by more than "
            f"{100 * self.tolerance:g} % of Dice on {self.cases} cases; tried: {tried or 'none'}"
        )


def smallest_depth(
    full: pd.DataFrame, candidate: Callable[[int], pd.DataFrame], shallowest: int, deepest: int, tolerance: float
) -> DepthSearch:
    """Find, by bisection, the smallest depth that is not worse than the full network by more than `tolerance`.

    Not worse: the whole 95 % paired interval over cases lies above minus the tolerance (0.01 is 1 %). `full` is the
    full network's per-case table (case, class, dice). `candidate` makes and evaluates the network of a depth and
    returns its table. Bisection assumes that a deeper network is never worse than a shallower one. `deepest` is the
    full depth and is not tried. Raises InputError with fewer cases than a verdict needs.
    """
    cases = full["case"].nunique()
    if cases < VERDICT_CASES:
        raise InputError(f"a depth cannot be chosen by accuracy on {cases} cases: at least {VERDICT_CASES} are needed")
    tried: list[DepthTrial] = []
    too_few, enough = shallowest - 1, deepest
    while enough - too_few > 1:
        depth = (too_few + enough) // 2
        begin = time.perf_counter()
        difference = change(full, candidate(depth))
        holds = difference.verdict(tolerance) == "not worse"
        tried.append(DepthTrial(depth, difference, holds, time.perf_counter() - begin))
        too_few, enough = (too_few, depth) if holds else (depth, enough)
    return DepthSearch(enough, tolerance, cases, tuple(tried))
