"""Depth rules: compares the depth that each rule chooses with the smallest depth that is not worse.

To add a rule, add a function here, its entry in `RULES`, and its name in `vitrim.config.names.RuleName`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from vitrim.attention.decision import ROUNDING, Decision, reaches, stored_rule
from vitrim.attention.measures import MEASURES
from vitrim.attention.profile import AttentionProfile
from vitrim.attention.rule import decide_depth
from vitrim.compression.depth_procedure import segments_nothing
from vitrim.compression.depth_search import smallest_depth
from vitrim.compression.exchange_curve import ExchangeCurve, lasting_depth
from vitrim.config.names import RuleName
from vitrim.errors import InputError
from vitrim.metrics.statistics import VERDICT_CASES, change, in_sequence

INFLUENCE = "influence.csv"
"""Name of the file with the block influence of each case, in a folder of attention results."""
INFLUENCE_SHARE = 0.9
"""The rule `influence` keeps the first blocks that hold this share of the total block influence."""
SWEEP = 4
"""Smallest number of trained depths, the full one included, that makes a study a depth sweep."""


@dataclass(frozen=True)
class Evidence:
    """Input of the rules: what was measured on one trained network. A field is None if it was not measured."""

    blocks: int
    """Number of blocks of the full network."""
    margin: float
    """Non-inferiority margin, relative to the Dice of the full network (0.05 is 5 %)."""
    attention: Decision | None = None
    """Decision by globality (`vitrim.decide_depth`), with the values of every block."""
    rollout: Decision | None = None
    """Decision by the globality of the rollout."""
    influence: np.ndarray | None = None
    """Block influence (cases, blocks)."""
    exchange: ExchangeCurve | None = None
    nested: Mapping[int, pd.DataFrame] = field(default_factory=dict)
    """Per-case table of every depth of one network of nested training."""
    tables: Mapping[int, pd.DataFrame] = field(default_factory=dict)
    """Per-case table (case, class, dice, and seed if there are several) of every trained depth, on cases that a rule
    may use."""


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
    bounded: bool
    """Whether a depth below `at_least` was shown worse, or this kind of network has no smaller form."""
    change_percent: float | None
    """Change in Dice at the rule's depth, on the same cases; None if that depth was not trained."""

    @property
    def verdict(self) -> str:
        """Say whether the depth lies within `at_least` and `enough` (right), or which side it misses."""
        if self.depth is None or not self.shown:
            return "cannot say"
        if self.depth > self.enough:
            return f"{self.depth - self.enough} more than needed"
        if not self.bounded:  # fewer blocks may do as well
            return "cannot say"
        return "too few blocks" if self.depth < self.at_least else "right"


def stored_evidence(folder: Path, margin: float, nested: dict[int, pd.DataFrame] | None = None) -> Evidence | None:
    """Return what was measured on a full network, from its folder of attention results; None if there is none.

    `nested` holds the per-case table of each depth of the nested network with the same seed, if one was trained.
    """
    rule = stored_rule(folder)
    if rule is None:
        return None
    try:
        rollout = decide_depth(AttentionProfile.load(folder), measure="rollout_globality")
    except InputError:  # a profile without this measure
        rollout = None
    return Evidence(
        blocks=len(rule.blocks),
        margin=margin,
        attention=rule,
        rollout=rollout,
        influence=_stored_influence(folder),
        exchange=ExchangeCurve.load(folder),
        nested=nested or {},
    )


def _stored_influence(folder: Path) -> np.ndarray | None:
    """Return the stored block influence as an array (cases, blocks); None if there is none."""
    path = folder / INFLUENCE
    return pd.read_csv(path).drop(columns="case").to_numpy(np.float64) if path.is_file() else None


def by_exchange(evidence: Evidence) -> int | None:
    """Return the exchange cut-off: the smallest depth after which blocks need not exchange anything."""
    return None if evidence.exchange is None else evidence.exchange.cutoff(evidence.margin)


def by_constant(evidence: Evidence) -> int | None:
    """Return the smallest depth after which attention need not depend on the image (Hassid et al. 2022)."""
    return None if evidence.exchange is None else evidence.exchange.cutoff(evidence.margin, "constant")


def by_globality(evidence: Evidence) -> int | None:
    """Return the first block whose attention is global (`vitrim.decide_depth`; the paper's idea in numbers)."""
    return None if evidence.attention is None else evidence.attention.depth


def by_lasting(evidence: Evidence) -> int | None:
    """Return the first block from which on attention is global in all later blocks too; all blocks if there is none."""
    decision = evidence.attention
    if decision is None:
        return None
    depth = evidence.blocks
    for block in reversed(decision.blocks):
        if not reaches(block, decision.threshold, MEASURES[decision.measure].falls, surely=True):
            break
        depth = block.block
    return depth


def by_rollout(evidence: Evidence) -> int | None:
    """Return the first block after which information can have come from everywhere (Abnar & Zuidema 2020)."""
    return None if evidence.rollout is None else evidence.rollout.depth


def by_influence(evidence: Evidence) -> int | None:
    """Return the smallest depth whose blocks hold nine tenths of the total block influence (Men et al. 2024).

    A criterion of pruning without training. As a rule for the depth it is a straw man.
    """
    return None if evidence.influence is None else influence_depth(evidence.influence)


def by_nested(evidence: Evidence) -> int | None:
    """Return the smallest depth from which on a nested network is not worse than at its full depth.

    Nested training lets the tokens leave after a random block in every second step (Fan et al. 2020, Elhoushi et al.
    2024). Depths that share weights can hinder each other, so this too is an upper bound.
    """
    return lasting_depth(evidence.nested, evidence.margin) if evidence.blocks in evidence.nested else None


def by_accuracy(evidence: Evidence) -> int | None:
    """Bisect the trained depths by their Dice, as `vitrim compress --tolerance` does for all depths."""
    depths = sorted(evidence.tables)
    if len(depths) < 2 or evidence.tables[depths[-1]]["case"].nunique() < VERDICT_CASES:
        return None
    tables = [evidence.tables[depth] for depth in depths]
    return depths[smallest_depth(tables[-1], lambda place: tables[place], 0, len(depths) - 1, evidence.margin).depth]


RULES: dict[RuleName, Rule] = {
    "exchange": Rule("exchange (cut-off)", by_exchange),
    "constant": Rule("constant attention (cut-off)", by_constant),
    "globality": Rule("globality (first global block)", by_globality),
    "lasting": Rule("globality (global from there on)", by_lasting),
    "rollout": Rule("rollout (first global block)", by_rollout),
    "influence": Rule("block influence (nine tenths)", by_influence),
    "nested": Rule("nested training", by_nested),
    "accuracy": Rule("accuracy (bisection)", by_accuracy),
}
"""Every rule by name, in the order of the tables."""


def answers_of(evidence: Evidence) -> dict[str, int | None]:
    """Return the depth that each rule gives; None if it cannot choose."""
    return {name: rule.choose(evidence) for name, rule in RULES.items()}


def untrained_answers(rule: Decision) -> dict[str, int | None]:
    """Return what the rule `globality` says of the network before training; empty if that was not measured."""
    before = [block.untrained_value for block in rule.blocks]
    known = [value for value in before if value is not None]
    return {"globality": _first(known, rule)} if len(known) == len(before) else {}


def changed_by_training(rule: Decision) -> bool:
    """Whether training changed the answer of the attention rule, both from the means of the blocks."""
    before = untrained_answers(rule).get("globality")
    return before is not None and before != _first([block.value for block in rule.blocks], rule)


def _first(values: Sequence[float], rule: Decision) -> int:
    """The first block whose value reaches the threshold; the number of all blocks if none does."""
    sign = -1 if rule.falls else 1
    reached = [n for n, value in enumerate(values, 1) if sign * (value - rule.threshold) >= -ROUNDING]
    return reached[0] if reached else len(values)


def influence_depth(influence: np.ndarray) -> int:
    """Return the smallest depth whose blocks hold nine tenths of the total of `influence` (cases, blocks)."""
    shares = np.cumsum(influence.mean(axis=0))
    if shares[-1] <= 0:
        return 0
    return int(np.searchsorted(shares / shares[-1], INFLUENCE_SHARE - 1e-9) + 1)


def judge_rules(tables: Mapping[int, pd.DataFrame], evidence: Evidence, shallowest: int) -> list[RuleResult]:
    """Compare the depth that each rule chooses with what a sweep shows: between which depths the needed one lies.

    `tables` holds the per-case table of every trained depth; the deepest is the full network. The rule `accuracy` uses
    every second held-out case. The other cases judge, so no rule is judged on cases that it used. The needed depth is
    at least the smallest that was not shown worse, and at most the smallest that was shown not worse (from deep to
    shallow, as a fixed sequence); the full depth if there is none. No rule is judged against a full
    network that segments nothing. `shallowest` is the smallest depth of this kind of network.
    """
    deepest, margin = max(tables), evidence.margin
    cases = sorted(tables[deepest]["case"].unique())
    own, judging = (tuple(cases[start::2]) for start in (0, 1))
    evidence = replace(evidence, tables={depth: _only(table, own) for depth, table in tables.items()})
    full = _only(tables[deepest], judging)
    depths = sorted(tables.keys() - {deepest}, reverse=True)
    changes = {d: change(full, _only(tables[d], judging)) for d in depths}
    verdicts = dict(zip(depths, in_sequence([changes[d].verdict(margin) for d in depths]), strict=True))
    at_least = min((d for d, verdict in verdicts.items() if verdict != "worse"), default=deepest)
    enough = min((d for d, verdict in verdicts.items() if verdict == "not worse"), default=deepest)
    comparable = not segments_nothing(tables[deepest], "held-out cases")
    shown = comparable and any(verdict != "undecided" for verdict in verdicts.values())
    if not comparable:
        at_least, enough, changes = min(tables), deepest, {}
    bounded = "worse" in verdicts.values() or at_least <= shallowest
    results = []
    for name, depth in answers_of(evidence).items():
        percent = 0.0 if depth == deepest and comparable else changes[depth].percent if depth in changes else None
        results.append(RuleResult(name, depth, at_least, enough, shown, bounded, percent))
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
                "needed_low": one.at_least if one.bounded else None,
                "needed_high": one.enough,
                "dice_change_percent": one.change_percent,
                "verdict": one.verdict,
            }
            for network, seed, fold, margin, rules in judged
            for one in rules
        ]
    ).astype({"depth": "Int64", "needed_low": "Int64"})


def _only(table: pd.DataFrame, cases: Sequence[str]) -> pd.DataFrame:
    return table[table["case"].isin(cases)]
