"""Depth rules, on sweeps whose needed depth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vitrim.attention.decision import BlockValue, Decision, reached
from vitrim.compression.depth_rules import (
    RULES,
    Evidence,
    answers_of,
    changed_by_training,
    influence_depth,
    judge_rules,
    rule_results_table,
    untrained_answers,
)
from vitrim.compression.exchange_curve import ExchangeCurve


def sweep(levels: dict[int, float], cases: int = 20) -> dict[int, pd.DataFrame]:
    """Per-case tables of a sweep with these average Dice values; a case's offset is the same at all depths."""
    rng = np.random.default_rng(0)
    own = rng.normal(0, 0.03, size=cases)
    return {
        depth: pd.DataFrame(
            {
                "case": [f"case{n:02d}" for n in range(cases)],
                "class": "disc",
                "dice": level + own + rng.normal(0, 0.002, size=cases),
            }
        )
        for depth, level in levels.items()
    }


def rule_decision(values: list[float], threshold: float = 2 / 3) -> Decision:
    """A decision by globality over blocks with these values, certain to 0.01."""
    blocks = tuple(BlockValue(n, value, value - 0.01, value + 0.01, 0.9, 1.0, 1.0) for n, value in enumerate(values, 1))
    found = reached(blocks, threshold, falls=False)
    return Decision(found.depth, found.low, found.high, "globality", "mean", threshold, (), blocks, ("a",), 1, 0)


def evidence(globality: int, influence: np.ndarray | None = None) -> Evidence:
    """Twelve blocks, of which the first global one is number `globality`."""
    values = [0.9 if block >= globality else 0.1 for block in range(1, 13)]
    return Evidence(12, 0.05, rule_decision(values), influence=influence)


def curve(kept: dict[str, list[float]], cases: int = 12) -> ExchangeCurve:
    """An exchange curve: for each form, average Dice with 0, 1, 2, … blocks that exchange; untouched it is 0.9."""
    rng, rows = np.random.default_rng(0), []
    offsets = rng.normal(0, 0.02, size=cases)
    length = len(next(iter(kept.values())))
    levels = [("none", length, 0.9)] + [(form, k, level) for form, all in kept.items() for k, level in enumerate(all)]
    for form, block, level in levels:
        for case in range(cases):
            dice = level + offsets[case] + rng.normal(0, 0.002)
            row = {"form": form, "where": "after", "block": block, "case": f"case{case:02d}", "class": "disc"}
            rows.append({**row, "dice": dice, "reference_voxels": 10, "predicted_voxels": 10, "against": "labels"})
    return ExchangeCurve(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("rule", "given", "depth"),
    [
        ("exchange", {"exchange": curve({"identity": [0.2, 0.9, 0.5, 0.9, 0.9]})}, 3),  # all larger ones must hold too
        ("exchange", {"exchange": curve({"identity": [0.89] * 5})}, 0),
        ("exchange", {"exchange": curve({"identity": [0.2, 0.5, 0.84, 0.9, 0.9]})}, 3),  # 0.84 is 6.7 % below 0.9
        ("constant", {"exchange": curve({"identity": [0.2] * 5, "constant": [0.3, 0.9, 0.9, 0.9, 0.9]})}, 1),
        ("globality", {"attention": rule_decision([0.1, 0.9, 0.2, 0.9, 0.9])}, 2),
        ("lasting", {"attention": rule_decision([0.1, 0.9, 0.2, 0.9, 0.9])}, 4),
        ("lasting", {"attention": rule_decision([0.9, 0.9, 0.9, 0.9, 0.2])}, 5),
        ("rollout", {"rollout": rule_decision([0.1, 0.2, 0.9, 0.9, 0.9])}, 3),
        ("influence", {"influence": np.array([[0.5, 0.3, 0.15, 0.03, 0.02]])}, 3),
        ("nested", {"nested": sweep({1: 0.5, 2: 0.9, 3: 0.5, 4: 0.9, 5: 0.9})}, 4),
        ("accuracy", {"tables": sweep({0: 0.5, 1: 0.5, 2: 0.9, 3: 0.9, 5: 0.9})}, 2),
    ],
)
def test_every_rule_gives_the_known_answer(rule: str, given: dict[str, object], depth: int) -> None:
    found = answers_of(Evidence(5, 0.05, **given))  # type: ignore[arg-type]
    assert found[rule] == depth
    needs = next(iter(given))
    assert answers_of(Evidence(5, 0.05))[rule] is None, f"{rule} answers without {needs}"


def test_every_rule_has_a_known_answer() -> None:
    (marks,) = test_every_rule_gives_the_known_answer.pytestmark
    assert {case[0] for case in marks.args[1]} == set(RULES)


def test_with_few_cases_the_cut_off_is_a_point_estimate() -> None:
    assert curve({"identity": [0.2, 0.5, 0.9, 0.9, 0.9]}, cases=3).cutoff(0.05) == 2


def test_a_block_does_nothing_pools_looks_at_fixed_places_or_by_content() -> None:
    forms = {
        "identity": [0.2, 0.3, 0.4, 0.5, 0.9],
        "uniform": [0.2, 0.3, 0.4, 0.9, 0.9],
        "constant": [0.2, 0.3, 0.9, 0.9, 0.9],
    }
    assert curve(forms).roles(0.05) == ["content", "content", "fixed places", "pools", "nothing"]


def test_several_seeds_are_joined_and_a_case_of_several_folds_counts_once() -> None:
    one = curve({"identity": [0.2, 0.9, 0.9]})
    joined = ExchangeCurve.joined([(0, 0, one), (1, 0, one)])
    assert (joined.cases, joined.changes()[1].seeds, joined.cutoff(0.05)) == (12, 2, 1)
    folds = ExchangeCurve.joined([(0, 0, one), (0, 1, one)])
    assert (folds.cases, folds.cutoff(0.05)) == (12, 1)


def test_each_rule_is_told_whether_it_was_right():
    tables = sweep({0: 0.5, 1: 0.5, 2: 0.9, 3: 0.9, 12: 0.9})
    influence = np.array([[0.5, 0.3, 0.15, *[0.05 / 9] * 9]] * 4)
    found = {one.rule: one for one in judge_rules(tables, evidence(1, influence), 0)}
    assert {(one.at_least, one.enough) for one in found.values()} == {(2, 2)}
    assert found["globality"].verdict == "too few blocks"
    assert found["globality"].change_percent == pytest.approx(-44, abs=3)
    assert found["influence"].depth == 3
    assert found["influence"].verdict == "1 more than needed"
    assert found["accuracy"].verdict == "right"


def test_where_nothing_smaller_will_do_all_blocks_are_needed():
    found = judge_rules(sweep({1: 0.5, 6: 0.7, 12: 0.9}), evidence(12), 0)
    assert {(one.at_least, one.enough) for one in found} == {(12, 12)}
    verdicts = {one.rule: one.verdict for one in found}
    assert (verdicts["globality"], verdicts["influence"], verdicts["accuracy"]) == ("right", "cannot say", "right")


def test_no_depth_is_called_needed_if_a_smaller_form_was_not_tried():
    found = {one.rule: one for one in judge_rules(sweep({3: 0.9, 6: 0.9, 12: 0.9}), evidence(3), shallowest=0)}
    assert found["globality"].verdict == "cannot say"
    rows = rule_results_table([("transunet", 0, 0, 0.05, list(found.values()))])
    assert rows["needed_low"].isna().all()
    assert set(rows["needed_high"]) == {3}
    found = {one.rule: one for one in judge_rules(sweep({3: 0.9, 6: 0.9, 12: 0.9}), evidence(3), shallowest=3)}
    assert found["globality"].verdict == "right"


def test_no_rule_is_judged_against_a_full_network_that_segments_nothing():
    found = judge_rules(sweep({1: 0.8, 6: 0.05, 12: 0.05}), evidence(12), 0)
    assert {(one.verdict, one.change_percent) for one in found} == {("cannot say", None)}


def test_a_depth_that_was_not_trained_is_judged_by_its_distance_alone():
    found = {one.rule: one for one in judge_rules(sweep({0: 0.9, 3: 0.9, 12: 0.9}), evidence(5), 0)}
    attention = found["globality"]
    assert (attention.change_percent, attention.verdict) == (None, "5 more than needed")


def test_a_rule_below_every_trained_depth_is_not_called_wrong_without_evidence() -> None:
    found = {one.rule: one for one in judge_rules(sweep({3: 0.9, 6: 0.9, 12: 0.9}), evidence(1), 0)}
    assert found["globality"].verdict == "cannot say"
    found = {one.rule: one for one in judge_rules(sweep({3: 0.5, 6: 0.9, 12: 0.9}), evidence(1), 0)}
    assert found["globality"].verdict == "too few blocks"


def test_attention_changed_only_if_the_same_rule_says_something_else_before_training() -> None:
    same = rule_decision([0.9, 0.9, 0.9])
    assert untrained_answers(same) == {"globality": 1}
    assert not changed_by_training(same)
    assert changed_by_training(rule_decision([0.1, 0.9, 0.9]))


def test_cases_that_chose_do_not_judge():
    """The accuracy rule chooses a depth that is good only on the tuning cases; the other cases reject it."""
    tables = sweep({1: 0.9, 12: 0.9})
    other = tables[1]["case"].isin(sorted(tables[1]["case"])[1::2])
    tables[1].loc[other, "dice"] -= 0.3
    found = {one.rule: one for one in judge_rules(tables, evidence(1), 0)}
    assert found["accuracy"].depth == 1
    assert found["accuracy"].at_least == 12
    assert found["accuracy"].verdict == "too few blocks"


def test_too_few_cases_leave_the_accuracy_rule_without_a_word():
    found = {one.rule: one for one in judge_rules(sweep({1: 0.9, 12: 0.9}, cases=8), evidence(1), 0)}
    assert found["accuracy"].depth is None
    attention = found["globality"]  # four judging cases give no verdict
    assert (attention.at_least, attention.enough, attention.verdict) == (1, 12, "cannot say")


def test_influence_is_added_up_from_the_first_block_on():
    assert influence_depth(np.array([[0.9, 0.1, 0.0]])) == 1
    assert influence_depth(np.array([[0.5, 0.3, 0.2]])) == 3
    assert influence_depth(np.full((5, 10), 0.1)) == 9
    assert influence_depth(np.zeros((2, 4))) == 0


def test_the_table_has_one_row_for_each_network_margin_and_rule():
    judged = judge_rules(sweep({1: 0.5, 12: 0.9}), evidence(1), 0)
    table = rule_results_table([("transunet", 0, 0, 0.05, judged)])
    assert table["rule"].tolist() == list(RULES)
    depths = dict(zip(table["rule"], table["depth"], strict=True))
    assert (depths["globality"], depths["influence"], depths["accuracy"]) == (1, pd.NA, 12)
