"""Depth rules, on sweeps whose needed depth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vitrim.compression.depth_rules import influence_depth, judge_rules, rule_results_table


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


def test_each_rule_is_told_whether_it_was_right():
    tables = sweep({0: 0.5, 1: 0.5, 2: 0.9, 3: 0.9, 12: 0.9})
    influence = np.array([[0.5, 0.3, 0.15, *[0.05 / 9] * 9]] * 4)
    found = {one.rule: one for one in judge_rules(tables, attention=1, influence=influence, margin=0.05)}
    assert {(one.at_least, one.enough) for one in found.values()} == {(2, 2)}
    assert found["attention"].verdict == "too few blocks"
    assert found["attention"].change_percent == pytest.approx(-44, abs=3)
    assert found["influence"].depth == 3
    assert found["influence"].verdict == "1 more than needed"
    assert found["accuracy"].verdict == "right"


def test_where_nothing_smaller_will_do_all_blocks_are_needed():
    found = judge_rules(sweep({1: 0.5, 6: 0.7, 12: 0.9}), attention=12, influence=None, margin=0.05)
    assert [(one.at_least, one.enough) for one in found] == [(12, 12)] * 3
    assert [one.verdict for one in found] == ["right", "cannot say", "right"]


def test_a_depth_that_was_not_trained_is_judged_by_its_distance_alone():
    (attention, *_) = judge_rules(sweep({0: 0.9, 3: 0.9, 12: 0.9}), attention=5, influence=None, margin=0.05)
    assert (attention.change_percent, attention.verdict) == (None, "5 more than needed")


def test_cases_that_chose_do_not_judge():
    """The accuracy rule chooses a depth that is good only on the tuning cases; the other cases reject it."""
    tables = sweep({1: 0.9, 12: 0.9})
    other = tables[1]["case"].isin(sorted(tables[1]["case"])[1::2])
    tables[1].loc[other, "dice"] -= 0.3
    found = {one.rule: one for one in judge_rules(tables, attention=1, influence=None, margin=0.05)}
    assert found["accuracy"].depth == 1
    assert found["accuracy"].at_least == 12
    assert found["accuracy"].verdict == "too few blocks"


def test_too_few_cases_leave_the_accuracy_rule_without_a_word():
    found = {one.rule: one for one in judge_rules(sweep({1: 0.9, 12: 0.9}, cases=8), 1, None, margin=0.05)}
    assert found["accuracy"].depth is None
    attention = found["attention"]  # four judging cases give no verdict
    assert (attention.at_least, attention.enough, attention.verdict) == (1, 12, "cannot say")


def test_influence_is_added_up_from_the_first_block_on():
    assert influence_depth(np.array([[0.9, 0.1, 0.0]])) == 1
    assert influence_depth(np.array([[0.5, 0.3, 0.2]])) == 3
    assert influence_depth(np.full((5, 10), 0.1)) == 9
    assert influence_depth(np.zeros((2, 4))) == 0


def test_the_table_has_one_row_for_each_network_margin_and_rule():
    judged = judge_rules(sweep({1: 0.5, 12: 0.9}), attention=1, influence=None, margin=0.05)
    table = rule_results_table([("transunet", 0, 0, 0.05, judged)])
    assert table["rule"].tolist() == ["attention", "influence", "accuracy"]
    assert table["depth"].tolist() == [1, pd.NA, 12]
