"""Rule against truth: the depth that each rule would have chosen, beside the smallest depth that is not worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vitrim.study.statistics import MINIMUM_CASES, change
from vitrim.tolerance import smallest_depth

INFLUENCE_SHARE = 0.9
"""Block influence keeps the first blocks that hold this share of all blocks' influence together."""
SWEEP = 4
"""Depths, the full one among them, from which a study is a depth sweep."""
RULES = ("attention", "influence", "accuracy")


@dataclass(frozen=True)
class Judged:
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


def influence_depth(influence: np.ndarray) -> int:
    """Smallest depth whose blocks hold nine tenths of the summed block influence; `influence` is (cases, blocks)."""
    shares = np.cumsum(influence.mean(axis=0))
    if shares[-1] <= 0:
        return 0
    return int(np.searchsorted(shares / shares[-1], INFLUENCE_SHARE - 1e-9) + 1)


def judge(
    tables: Mapping[int, pd.DataFrame], attention: int, influence: np.ndarray | None, margin: float
) -> list[Judged]:
    """Compare what the three rules choose with the smallest depth of a sweep that is not worse by `margin`.

    `tables` holds the per-case table (case, class, dice, and seed where there are several) of every trained depth; the
    deepest is the full network. Every other held-out case serves the accuracy rule, which bisects the trained depths;
    the rest says what was needed, so that no rule is judged on what it has seen. The full depth counts as needed where
    no smaller one is shown to be not worse.
    """
    deepest = max(tables)
    cases = sorted(tables[deepest]["case"].unique())
    tuning, judging = (tuple(cases[start::2]) for start in (0, 1))
    depths = sorted(tables)
    changes = {d: change(_only(tables[deepest], judging), _only(tables[d], judging)) for d in depths if d != deepest}
    needed = min((d for d, found in changes.items() if found.verdict(margin) == "not worse"), default=deepest)
    chosen: dict[str, int | None] = {
        "attention": attention,
        "influence": None if influence is None else influence_depth(influence),
        "accuracy": _by_accuracy(tables, depths, tuning, margin),
    }
    return [
        Judged(
            rule,
            depth,
            needed,
            0.0 if depth == deepest else changes[depth].percent if depth is not None and depth in changes else None,
        )
        for rule, depth in chosen.items()
    ]


def rules_table(judged: Sequence[tuple[str, int, int, float, list[Judged]]]) -> pd.DataFrame:
    """One row a network, seed, fold, margin and rule, with the depth chosen, the depth needed and the verdict."""
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


def _by_accuracy(
    tables: Mapping[int, pd.DataFrame], depths: Sequence[int], tuning: Sequence[str], margin: float
) -> int | None:
    """What `vitrim compress --tolerance` does, among the depths that were trained."""
    if len(tuning) < MINIMUM_CASES:
        return None
    places = {place: _only(tables[depth], tuning) for place, depth in enumerate(depths)}
    full = places[len(depths) - 1]
    return depths[smallest_depth(full, lambda place: places[place], 0, len(depths) - 1, margin).depth]


def _only(table: pd.DataFrame, cases: Sequence[str]) -> pd.DataFrame:
    return table[table["case"].isin(cases)]
