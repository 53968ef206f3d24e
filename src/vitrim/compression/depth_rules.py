"""Depth rules: compares the depth that each rule chooses with the smallest depth that is not worse.

To add a rule, add a function here, its entry in `RULES`, and its name in `vitrim.config.names.RuleName`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vitrim.compression.depth_search import smallest_depth
from vitrim.config.names import RuleName
from vitrim.metrics.statistics import MINIMUM_CASES, change

INFLUENCE_SHARE = 0.9
"""The rule `influence` keeps the first blocks that hold this share of the total block influence."""
SWEEP = 4
"""Smallest number of trained depths, the full one included, that makes a study a depth sweep."""


@dataclass(frozen=True)
class Evidence:
    """Input of the rules: one network of a depth sweep."""

    tables: Mapping[int, pd.DataFrame]
    """Per-case table (case, class, dice, and seed if there are several) of every trained depth."""
    tuning: Sequence[str]
    """Cases that a rule may use; the other cases judge the rules."""
    attention: int
    """The depth decided by attention."""
    influence: np.ndarray | None
    """Block influence (cases, blocks); None if it was not measured."""
    margin: float
    """Non-inferiority margin, relative to the Dice of the full network (0.05 is 5 %)."""


@dataclass(frozen=True)
class Rule:
    """A depth rule."""

    title: str
    choose: Callable[[Evidence], int | None]
    """Returns the depth that the rule chooses; None if it cannot choose."""


@dataclass(frozen=True)
class RuleResult:
    """The depth that a rule chose for one network, and the smallest depth that is not worse."""

    rule: str
    depth: int | None
    """None if the rule could not choose: too few cases, or block influence was not measured."""
    needed: int
    """The smallest trained depth that is not worse by more than the margin, on cases that no rule used."""
    change_percent: float | None
    """Change in Dice at the rule's depth, on the same cases; None if that depth was not trained."""

    @property
    def verdict(self) -> str:
        """Say whether the rule was right, or kept too few or too many blocks."""
        if self.depth is None:
            return "cannot say"
        if self.depth == self.needed:
            return "right"
        return "too few blocks" if self.depth < self.needed else f"{self.depth - self.needed} more than needed"


def by_attention(evidence: Evidence) -> int:
    """Return the depth decided by attention (`vitrim.decide_depth`)."""
    return evidence.attention


def by_influence(evidence: Evidence) -> int | None:
    """Return the smallest depth whose blocks hold nine tenths of the total block influence (Men et al. 2024)."""
    return None if evidence.influence is None else influence_depth(evidence.influence)


def by_accuracy(evidence: Evidence) -> int | None:
    """Bisect the trained depths on the tuning cases, as `vitrim compress --tolerance` does for all depths."""
    if len(evidence.tuning) < MINIMUM_CASES:
        return None
    depths = sorted(evidence.tables)
    tables = [_only(evidence.tables[depth], evidence.tuning) for depth in depths]
    return depths[smallest_depth(tables[-1], lambda place: tables[place], 0, len(depths) - 1, evidence.margin).depth]


RULES: dict[RuleName, Rule] = {
    "attention": Rule("attention (first global block)", by_attention),
    "influence": Rule("block influence (nine tenths)", by_influence),
    "accuracy": Rule("accuracy (bisection)", by_accuracy),
}
"""Every rule by name, in the order of the tables."""


def influence_depth(influence: np.ndarray) -> int:
    """Return the smallest depth whose blocks hold nine tenths of the total of `influence` (cases, blocks)."""
    shares = np.cumsum(influence.mean(axis=0))
    if shares[-1] <= 0:
        return 0
    return int(np.searchsorted(shares / shares[-1], INFLUENCE_SHARE - 1e-9) + 1)


def judge_rules(
    tables: Mapping[int, pd.DataFrame], attention: int, influence: np.ndarray | None, margin: float
) -> list[RuleResult]:
    """Compare the depth that each rule chooses with the smallest depth of a sweep that is not worse by `margin`.

    `tables` holds the per-case table of every trained depth; the deepest is the full network. The rules use every
    second held-out case. The other cases decide which depth was needed, so no rule is judged on cases that it used. If
    no smaller depth is shown to be not worse, the full depth counts as needed.
    """
    deepest = max(tables)
    cases = sorted(tables[deepest]["case"].unique())
    tuning, judging = (tuple(cases[start::2]) for start in (0, 1))
    evidence = Evidence(tables, tuning, attention, influence, margin)
    full = _only(tables[deepest], judging)
    changes = {d: change(full, _only(table, judging)) for d, table in sorted(tables.items()) if d != deepest}
    needed = min((d for d, found in changes.items() if found.verdict(margin) == "not worse"), default=deepest)
    results = []
    for name, rule in RULES.items():
        depth = rule.choose(evidence)
        percent = 0.0 if depth == deepest else changes[depth].percent if depth in changes else None
        results.append(RuleResult(name, depth, needed, percent))
    return results


def rule_results_table(judged: Sequence[tuple[str, int, int, float, list[RuleResult]]]) -> pd.DataFrame:
    """Return one row per network, seed, fold, margin and rule, with chosen depth, needed depth and verdict."""
    return pd.DataFrame(
        [
            {
                "network": network,
                "seed": seed,
                "fold": fold,
                "margin_percent": 100 * margin,
                "rule": one.rule,
                "depth": one.depth,
                "needed": one.needed,
                "dice_change_percent": one.change_percent,
                "verdict": one.verdict,
            }
            for network, seed, fold, margin, rules in judged
            for one in rules
        ]
    ).astype({"depth": "Int64"})


def _only(table: pd.DataFrame, cases: Sequence[str]) -> pd.DataFrame:
    return table[table["case"].isin(cases)]
