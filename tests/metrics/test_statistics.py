"""The change in Dice, its interval and its verdict."""

import math

import numpy as np
import pandas as pd
import pytest

from vitrim.metrics.intervals import limits
from vitrim.metrics.statistics import (
    Change,
    average_dice,
    average_interval,
    change,
    false_positives,
    in_sequence,
    network_dice,
    pseudo_values,
)


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


def test_a_sequence_of_depths_ends_at_the_first_that_is_not_shown_as_good():
    assert in_sequence(["not worse", "undecided", "not worse", "worse"]) == [
        "not worse",
        "undecided",
        "undecided",
        "worse",
    ]


def test_the_interval_is_the_set_of_margins_that_the_test_does_not_reject():
    rng = np.random.default_rng(5)
    full = rng.uniform(0.6, 0.9, size=(14, 1))
    small = full - rng.normal(0.03, 0.02, size=(14, 1))
    found = change(cases(full, ["liver"]), cases(small, ["liver"]))
    for end, side in ((found.low, 0), (found.high, 1)):
        g = small - (1 + end / 100) * full
        assert limits(g.T)[side] == pytest.approx(0, abs=1e-4)
    assert found.low < found.percent < found.high


def test_no_verdict_with_few_cases_and_a_provisional_one_with_some():
    rng = np.random.default_rng(6)
    for number, verdict in ((7, "undecided"), (8, "not worse"), (20, "not worse")):
        full = rng.uniform(0.7, 0.9, size=(number, 2))
        found = change(cases(full), cases(full - 0.001))
        assert found.verdict(0.05) == verdict
        assert found.provisional
    table = cases(full)
    assert not change(seeds([table] * 3), seeds([table] * 3)).provisional


def test_one_false_voxel_in_a_case_without_the_class_changes_nothing():
    """In three of ten cases the reference lacks the spleen, and the small network finds one voxel of it there."""
    full = cases([[0.8, 0.8]] * 7 + [[0.8, np.nan]] * 3)
    small = cases([[0.8, 0.8]] * 7 + [[0.8, 0.0]] * 3)
    voxels = np.where(np.isnan(full["dice"]), 0, 100)
    full, small = (table.assign(reference_voxels=voxels) for table in (full, small))
    full, small = full.assign(predicted_voxels=voxels), small.assign(predicted_voxels=np.maximum(voxels, 1))
    assert change(full, small).percent == pytest.approx(0)
    assert network_dice(small) == pytest.approx(0.8)
    assert false_positives(small) == {"liver": 0, "spleen": 3}
    assert false_positives(full) == {"liver": 0, "spleen": 0}


def test_pseudo_values_of_a_table_without_gaps_are_the_means_of_the_cases():
    table = np.random.default_rng(7).uniform(size=(6, 3))
    assert pseudo_values(table) == pytest.approx(table.mean(axis=1))


def test_pseudo_values_are_those_of_the_jackknife():
    table = np.random.default_rng(8).uniform(size=(6, 2))
    table[:3, 1] = np.nan
    whole = average_dice(table)
    without = [average_dice(np.delete(table, case, axis=0)) for case in range(6)]
    assert pseudo_values(table) == pytest.approx([6 * whole - 5 * one for one in without])
    assert pseudo_values(table).mean() == pytest.approx(whole)


def test_the_cases_needed_grow_with_the_square_of_the_deviation():
    full = np.full((10, 1), 0.8)
    small = full + np.array([[0.04], [-0.04]] * 5)
    found = change(cases(full, ["liver"]), cases(small, ["liver"]))
    share = float(np.std(small - full, ddof=1)) / 0.8
    assert found.cases_needed(0.01) == math.ceil((2.8 * share / 0.01) ** 2)
    assert found.cases_needed(0.5) == 8


def draws(rng, kind, shape):
    """Values whose mean is exactly at the margin."""
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "failed cases":
        return 1 - rng.gamma(1, size=shape)
    case, seed, rest = kind
    seeds, n = shape
    return case * rng.normal(size=(1, n)) + seed * rng.normal(size=(seeds, 1)) + rest * rng.normal(size=shape)


def wrong_share(kind, shape, number, **options):
    """In how many percent of `number` studies "not worse" is said although the truth lies at the margin."""
    rng = np.random.default_rng(9)
    return 100 * np.mean([limits(draws(rng, kind, shape), **options)[0] > 0 for _ in range(number)])


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 10, 12, 52])
def test_not_worse_is_wrong_in_about_one_of_forty(n):
    assert 1.5 <= wrong_share("normal", (1, n), 4000) <= 4


@pytest.mark.slow
def test_a_few_failed_cases_do_not_break_the_verdict():
    assert wrong_share("failed cases", (1, 10), 4000) <= 6


@pytest.mark.parametrize("kind", [(1, 0.3, 1), (1, 1, 1), (0.3, 1, 0.3)])
def test_several_seeds_are_covered(kind):
    """Standard deviation of case, seed and rest."""
    assert wrong_share(kind, (3, 10), 4000) <= 5


def test_the_verdict_covers_in_a_short_simulation():
    assert 0.5 <= wrong_share("normal", (1, 10), 1000) <= 4.5
    assert wrong_share("failed cases", (1, 10), 1000) <= 7.5


def test_folds_that_differ_widen_the_limits():
    rng = np.random.default_rng(10)
    fold = np.repeat(np.arange(5), 8)
    values = rng.normal(size=(1, 40)) + rng.normal(size=5)[fold]
    low, high = limits(values, folds=fold)
    alone = limits(values)
    assert low < alone[0] < alone[1] < high
    shift = np.array([wrong_share_of_folds(rng, fold) for _ in range(500)])
    assert 100 * shift.mean() <= 5


def wrong_share_of_folds(rng, fold):
    return limits((rng.normal(size=len(fold)) + rng.normal(size=5)[fold])[None], folds=fold)[0] > 0


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
    skewed = np.array([[0.99], [0.98], [0.99], [0.1], [0.97], [0.99]])
    low, high = average_interval(skewed, most=1.0)
    assert low is not None
    assert high is not None
    assert 0 <= low < 0.84 < high <= 1
    unbounded = average_interval(skewed)[1]
    assert unbounded is not None
    assert unbounded > 1
