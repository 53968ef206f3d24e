"""Tests of the sentences of the report."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vitrim.attention.decision import FEW_CASES, NO_INTERVAL, BlockValue, Decision
from vitrim.report.formatting import fixed, interval_text, listing, signed, whole
from vitrim.report.run import NetworkRun
from vitrim.report.sentences import costs, explain_flags, nearly_uniform, no_decision, rule, saves, verdicts


def decision(values: tuple[float, ...], entropies: tuple[float, ...], depth: int, **changes: object) -> Decision:
    blocks = tuple(
        BlockValue(i, v, v - 0.01, v + 0.01, e, 1.0, 1.0)
        for i, (v, e) in enumerate(zip(values, entropies, strict=True), 1)
    )
    made = Decision(depth, depth, depth, "globality", "mean", 2 / 3, (), blocks, tuple("abcdefghijkl"), 2000, 0)
    return replace(made, **changes)  # type: ignore[arg-type]


NETWORK = NetworkRun("unetr2d", Path(), None, None, None, None, None)
LOOKS = decision((0.3, 0.5, 0.7, 0.8), (0.5, 0.7, 0.9, 0.95), 3)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.8164, 3, "0.816"), (-2.16, 2, "−2.16"), (-0.0004, 2, "0.00"), (None, 3, "–"), (math.nan, 3, "–"),
        (np.int64(3), 0, "3"), (np.float32(0.5), 1, "0.5"),
    ],
)  # fmt: skip
def test_a_number_is_shown_with_its_decimals_or_as_a_dash(value: float, digits: int, text: str) -> None:
    assert fixed(value, digits) == text


def test_a_gain_has_a_plus_and_no_change_has_none() -> None:
    assert [signed(value, 2) for value in (0.58, 0.0, -0.001, -0.21)] == ["+0.58", "0.00", "0.00", "−0.21"]


def test_an_interval_without_an_end_is_a_dash() -> None:
    assert interval_text(-1.2, 0.3, 1) == "−1.2 to +0.3"
    assert interval_text(None, 0.3, 1) == "–"


def test_lists_read_as_people_say_them() -> None:
    assert [listing([]), listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert whole(105277081) == "105,277,081"


def test_without_a_verdict_the_attention_rule_is_all_that_is_said() -> None:
    assert no_decision(NETWORK) == "No decision is stored for 2D UNETR."
    text = no_decision(replace(NETWORK, rule=LOOKS))
    assert text == "For 2D UNETR the attention rule says 3 blocks; nothing was shown of it."


def test_uniform_attention_in_the_deciding_block_takes_the_answers_meaning() -> None:
    uniform = decision((1.0, 1.0, 1.0), (0.999, 0.99, 0.985), 1)
    text = nearly_uniform(NETWORK, uniform)
    assert text.startswith("In every block the attention of 2D UNETR is nearly uniform")
    assert "entropy is 0.985 or more" in text
    assert "in the same network before training it is 1.00" in text
    assert "says nothing about what this network learned" in text


def test_uniform_attention_further_up_leaves_the_answer_its_meaning() -> None:
    later = decision((0.3, 0.7, 0.9, 1.0, 1.0), (0.5, 0.8, 0.99, 0.97, 0.99), 2)
    (text,) = explain_flags(NETWORK, later)
    assert text.startswith("In blocks 3 and 5 attention is nearly uniform")
    assert "stops earlier, in block 2 (entropy 0.800)" in text


def test_what_a_network_was_before_its_training_is_not_called_learned() -> None:
    (text,) = explain_flags(NETWORK, decision((0.9, 0.95), (0.9, 0.9), 1))
    assert text.startswith("The untrained 2D UNETR already reaches the threshold in block 1 (its globality is 1.00)")
    assert explain_flags(NETWORK, LOOKS) == []


def test_every_flag_has_its_words() -> None:
    flagged = replace(LOOKS, flags=(FEW_CASES, NO_INTERVAL, "something new"))
    lines = explain_flags(NETWORK, flagged)
    assert "80 to 90 %" in lines[0]
    assert "has no interval" in lines[1]
    assert lines[2] == "Flag of the decision: something new."


def test_the_rule_says_from_which_side_the_threshold_is_reached() -> None:
    assert "globality is at least 2/3" in rule(LOOKS)
    falling = replace(LOOKS, measure="self_share", head="max", threshold=0.1)
    assert "in its most global head is at most 0.1." in rule(falling)


ROW = pd.Series({"parameters_saved_percent": 60.59, "multiply_adds": 40, "average_dice": 0.86,
                 "dice_change_percent": -0.21,
                 "change_low_percent": -1.0, "change_high_percent": 0.5, "verdict_5": "not worse",
                 "verdict_1": "undecided"})  # fmt: skip
FULL = pd.Series({"multiply_adds": 100, "average_dice": 0.862})


def test_what_is_saved_is_parameters_and_multiply_adds() -> None:
    assert saves(ROW, FULL) == "It saves 60.6 % of the parameters and 60.0 % of the multiply-adds."
    assert saves(ROW.drop("parameters_saved_percent"), FULL) == "It saves 60.0 % of the multiply-adds."


def test_what_it_costs_is_said_with_interval_and_verdicts() -> None:
    text = costs(ROW, FULL, ("5", "1"))
    assert "from 0.862 to 0.860, a change of −0.21 % (95 % interval −1.00 to +0.50 %)" in text
    assert text.endswith("not worse by more than 5 % and undecided at a margin of 1 %.")
    assert "too few cases for an interval" in costs(ROW.drop("change_low_percent"), FULL, ())


def test_equal_verdicts_are_said_once() -> None:
    assert verdicts({"5": "undecided", "1": "undecided"}) == "undecided at a margin of 5 % or 1 %"
    assert verdicts({"5": None, "1": math.nan}) == ""
