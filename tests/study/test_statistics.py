"""The change in Dice, its interval and its verdict."""

import numpy as np
import pandas as pd
import pytest

from vitrim.study.statistics import Change, average_dice, change


def cases(values, classes=("liver", "spleen")):
    """A per-case table from rows of Dice, one row a case."""
    return pd.DataFrame(
        [
            {"case": f"case{i:02d}", "class": name, "dice": value}
            for i, row in enumerate(values)
            for name, value in zip(classes, row, strict=True)
        ]
    )


def test_a_case_without_a_class_is_left_out_of_that_class_alone():
    table = np.array([[0.8, np.nan], [0.6, 0.5]])
    assert average_dice(table) == pytest.approx((0.7 + 0.5) / 2)


def test_a_missed_organ_stays_in_the_mean():
    assert average_dice(np.array([[0.8, 0.0], [0.8, 1.0]])) == pytest.approx((0.8 + 0.5) / 2)


def test_a_class_that_no_case_has_is_not_counted():
    assert average_dice(np.array([[0.8, np.nan], [0.6, np.nan]])) == pytest.approx(0.7)


def test_the_change_is_relative_to_the_full_network():
    full, truncated = cases([[0.8, 0.8]] * 6), cases([[0.76, 0.76]] * 6)
    result = change(full, truncated)
    assert result.percent == pytest.approx(-5.0)
    assert result.low == pytest.approx(-5.0)
    assert result.high == pytest.approx(-5.0)


def test_the_interval_is_paired():
    """Cases differ much more among themselves than the two networks do on each: the interval stays narrow."""
    rng = np.random.default_rng(1)
    base = rng.uniform(0.2, 0.95, size=(12, 2))
    result = change(cases(base), cases(base - 0.01))
    assert result.low > -4
    assert result.high < 0


def test_fewer_than_five_cases_give_no_interval_and_no_verdict():
    result = change(cases([[0.8, 0.8]] * 4), cases([[0.8, 0.8]] * 4))
    assert (result.low, result.high) == (None, None)
    assert result.verdict(0.05) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-4.0, 1.0, "not worse"), (-9.0, -6.0, "worse"), (-9.0, 1.0, "undecided"), (-5.0, 1.0, "undecided")],
)
def test_the_verdict_needs_the_whole_interval_on_one_side_of_the_margin(low, high, verdict):
    assert Change(-3.0, low, high).verdict(0.05) == verdict


def test_different_cases_are_never_compared():
    with pytest.raises(ValueError, match="same cases"):
        change(cases([[0.8, 0.8]] * 6), cases([[0.8, 0.8]] * 5))


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(0)
    a, b = cases(rng.uniform(size=(8, 2))), cases(rng.uniform(size=(8, 2)))
    assert change(a, b, seed=3) == change(a, b, seed=3)
