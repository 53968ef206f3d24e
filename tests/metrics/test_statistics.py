"""The change in Dice, its interval and its verdict."""

import numpy as np
import pandas as pd
import pytest

from vitrim.metrics.statistics import Change, average_dice, average_interval, change


def cases(values, classes=("liver", "spleen")):
    """Return a per-case table from rows of Dice, one row per case."""
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
    """Dice differs much more between cases than between the two networks, but the interval stays narrow."""
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


def seeds(tables):
    """Return the tables of several trainings as one table."""
    return pd.concat([table.assign(seed=seed) for seed, table in enumerate(tables)])


def test_several_seeds_are_averaged_and_widen_the_interval_where_trainings_differ():
    rng = np.random.default_rng(0)
    full = rng.uniform(0.7, 0.9, size=(12, 2))
    alike = change(seeds([cases(full)] * 3), seeds([cases(full - 0.02)] * 3))
    apart = change(seeds([cases(full)] * 3), seeds([cases(full - d) for d in (-0.03, 0.02, 0.07)]))
    assert alike.percent == pytest.approx(apart.percent)
    assert alike.percent == pytest.approx(change(cases(full), cases(full - 0.02)).percent)
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_seeds_that_do_not_go_together_are_never_compared():
    table = cases([[0.8, 0.8]] * 6)
    with pytest.raises(ValueError, match="same cases"):
        change(seeds([table, table]), seeds([table]))


def test_many_comparisons_ask_for_more_certainty():
    rng = np.random.default_rng(2)
    full = rng.uniform(0.7, 0.9, size=(20, 2))
    result = change(cases(full), cases(full - rng.normal(0.02, 0.05, size=(20, 2))))
    one, many = result.interval(0.05), result.interval(0.05 / 12)
    assert many[0] < one[0] < one[1] < many[1]
    margin = -(many[0] + one[0]) / 200  # between the two lower ends
    assert result.verdict(margin) == "not worse"
    assert result.verdict(margin, comparisons=12) == "undecided"


def test_the_effect_size_is_the_mean_of_the_differences_over_their_deviation():
    full = np.full((6, 1), 0.8)
    differences = np.array([[-0.01], [-0.03]] * 3)
    result = change(cases(full, ["liver"]), cases(full + differences, ["liver"]))
    assert result.effect == pytest.approx(-0.02 / np.std(differences, ddof=1))
    assert change(cases(full, ["liver"]), cases(full - 0.02, ["liver"])).effect is None


def test_the_interval_of_a_mean_covers_it_in_about_19_of_20():
    rng = np.random.default_rng(3)
    draws = [average_interval(rng.normal(0.8, 0.05, size=(30, 1)), seed=n) for n in range(60)]
    assert 50 <= sum(low < 0.8 < high for low, high in draws) <= 60
    assert average_interval(np.full((4, 1), 0.8)) == (None, None)
