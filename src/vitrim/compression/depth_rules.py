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
from vitrim.metrics.statistics import VERDICT_CASES, change, in_sequence

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
    at_least: int
    """The smallest trained depth that was not shown worse by the margin, on cases that no rule used."""
    enough: int
    """The smallest trained depth that was shown not worse by the margin, on the same cases."""
    shown: bool
    """Whether anything was shown: at least one smaller depth is "worse" or "not worse"."""
    change_percent: float | None
    """Change in Dice at the rule's depth, on the same cases; None if that depth was not trained."""

    @property
    def verdict(self) -> str:
        """Say whether the depth lies within `at_least` and `enough` (right), or which side it misses."""
        if self.depth is None or not self.shown:
            return "cannot say"
        if self.depth < self.at_least:
            return "too few blocks"
        return "right" if self.depth <= self.enough else f"{self.depth - self.enough} more than needed"


def by_attention(evidence: Evidence) -> int:
    """Return the depth decided by attention (`vitrim.decide_depth`)."""
    return evidence.attention


def by_influence(evidence: Evidence) -> int | None:
    """Return the smallest depth whose blocks hold nine tenths of the total block influence (Men et al. 2024)."""
    return None if evidence.influence is None else influence_depth(evidence.influence)


def by_accuracy(evidence: Evidence) -> int | None:
    """Bisect the trained depths on the tuning cases, as `vitrim compress --tolerance` does for all depths."""
    if len(evidence.tuning) < VERDICT_CASES:
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
    """Compare the depth that each rule chooses with what the sweep shows: between which depths the needed one lies.

    `tables` holds the per-case table of every trained depth; the deepest is the full network. The rules use every
    second held-out case. The other cases judge, so no rule is judged on cases that it used. The needed depth is at
    least the smallest that was not shown worse, and at most the smallest that was shown not worse (from deep to
    shallow, as a fixed sequence); the full depth if there is none.
    """
    deepest = max(tables)
    cases = sorted(tables[deepest]["case"].unique())
    tuning, judging = (tuple(cases[start::2]) for start in (0, 1))
    evidence = Evidence(tables, tuning, attention, influence, margin)
    full = _only(tables[deepest], judging)
    depths = sorted(tables.keys() - {deepest}, reverse=True)
    changes = {d: change(full, _only(tables[d], judging)) for d in depths}
    verdicts = dict(zip(depths, in_sequence([changes[d].verdict(margin) for d in depths]), strict=True))
    at_least = min((d for d, verdict in verdicts.items() if verdict != "worse"), default=deepest)
    enough = min((d for d, verdict in verdicts.items() if verdict == "not worse"), default=deepest)
    shown = any(verdict != "undecided" for verdict in verdicts.values())
    results = []
    for name, rule in RULES.items():
        depth = rule.choose(evidence)
        percent = 0.0 if depth == deepest else changes[depth].percent if depth in changes else None
        results.append(RuleResult(name, depth, at_least, enough, shown, percent))
    return results


def rule_results_table(judged: Sequence[tuple[str, int, int, float, list[RuleResult]]]) -> pd.DataFrame:
    """Return one row per network, seed, fold, margin and rule.

    A row has the chosen depth, the two depths between which the needed one lies, and the verdict.
    """
    return pd.DataFrame(
        [
            {
                "network": network,
                "seed": seed,
                "fold": fold,
                "margin_percent": 100 * margin,
                "rule": one.rule,
                "depth": one.depth,
                "needed_low": one.at_least,
                "needed_high": one.enough,
                "dice_change_percent": one.change_percent,
                "verdict": one.verdict,
            }
            for network, seed, fold, margin, rules in judged
            for one in rules
        ]
    ).astype({"depth": "Int64"})


def _only(table: pd.DataFrame, cases: Sequence[str]) -> pd.DataFrame:
    return table[table["case"].isin(cases)]
