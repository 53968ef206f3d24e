"""Rules for the depth: the depth that each rule chooses, beside the smallest depth that is not worse.

A new rule is one function here with its row in `RULES`, and its name in `vitrim.config.names.RuleName`.
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
"""Block influence keeps the first blocks that hold this share of the influence of all blocks."""
SWEEP = 4
"""Depths, the full one among them, from which a study is a depth sweep."""


@dataclass(frozen=True)
class Evidence:
    """What the rules may look at: one network of a depth sweep."""

    tables: Mapping[int, pd.DataFrame]
    """Per-case table (case, class, dice, and seed where there are several) of every trained depth."""
    tuning: Sequence[str]
    """Cases that a rule may look at; the others judge the rules."""
    attention: int
    """The depth that attention decided."""
    influence: np.ndarray | None
    """Block influence (cases, blocks); None where it was not measured."""
    margin: float


@dataclass(frozen=True)
class Rule:
    """A rule for the depth."""

    title: str
    choose: Callable[[Evidence], int | None]
    """The depth that it chooses; None where it cannot choose."""


@dataclass(frozen=True)
class RuleResult:
    """What a rule chose for one network, and how far that is from the smallest depth that is not worse."""

    rule: str
    depth: int | None
    """None where the rule could not choose: too few cases, or nothing measured."""
    needed: int
    """The smallest trained depth that is not worse by more than the margin, on cases that no rule has seen."""
    change_percent: float | None
    """Change in Dice at the rule's depth, on the same cases; None where that depth was not trained."""

    @property
    def verdict(self) -> str:
        """In a word: whether the rule was right, or kept too few blocks or too many."""
        if self.depth is None:
            return "cannot say"
        if self.depth == self.needed:
            return "right"
        return "too few blocks" if self.depth < self.needed else f"{self.depth - self.needed} more than needed"


def by_attention(evidence: Evidence) -> int:
    """The depth that attention decided (`vitrim.decide_depth`)."""
    return evidence.attention


def by_influence(evidence: Evidence) -> int | None:
    """Smallest depth whose blocks hold nine tenths of the summed block influence (Men et al. 2024)."""
    return None if evidence.influence is None else influence_depth(evidence.influence)


def by_accuracy(evidence: Evidence) -> int | None:
    """What `vitrim compress --tolerance` does, among the depths that were trained: bisection on the tuning cases."""
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
"""Every rule by its name, in the order of tables."""


def influence_depth(influence: np.ndarray) -> int:
    """Smallest depth whose blocks hold nine tenths of the summed block influence; `influence` is (cases, blocks)."""
    shares = np.cumsum(influence.mean(axis=0))
    if shares[-1] <= 0:
        return 0
    return int(np.searchsorted(shares / shares[-1], INFLUENCE_SHARE - 1e-9) + 1)


def judge_rules(
    tables: Mapping[int, pd.DataFrame], attention: int, influence: np.ndarray | None, margin: float
) -> list[RuleResult]:
    """Compare what each rule chooses with the smallest depth of a sweep that is not worse by `margin`.

    `tables` holds the per-case table of every trained depth; the deepest is the full network. The rules may look at
    every other held-out case; the rest says what was needed, so that no rule is judged on what it has seen. The full
    depth counts as needed where no smaller one is shown to be not worse.
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
    """One row per network, seed, fold, margin and rule, with the depth chosen, the depth needed and the verdict."""
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
