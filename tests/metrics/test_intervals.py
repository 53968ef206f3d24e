"""Resampling: by counts and a matrix product, with the results of gathering the drawn cases; and never twice."""

import numpy as np
import pandas as pd
import pytest

from vitrim.metrics import intervals
from vitrim.metrics.intervals import LAST_DECIMAL, limits, mean_interval, ratio_interval
from vitrim.metrics.statistics import change, change_percent

SAMPLES = [("normal", 12), ("with outliers", 9), ("all alike but one", 6), ("many", 60)]


def sample(kind, cases):
    rng = np.random.default_rng(cases)
    if kind == "all alike but one":
        return np.array([0.02] * (cases - 1) + [-0.1])
    return 0.01 * (rng.normal(size=cases) if kind != "with outliers" else 1 - rng.gamma(0.5, size=cases))


def gathered(values, seed=0):
    """Return the drawn cases of every resample, (resamples, cases, ...): the plain form of the bootstrap."""
    cases = len(values)
    counts = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=intervals.RESAMPLES)
    return np.stack([values[np.repeat(np.arange(cases), each)] for each in counts])


def gathered_limits(values):
    """The bootstrap-t of docs/definitions.md, from gathered cases."""
    cases, centre = len(values), values.mean()
    error = values.std(ddof=1) / np.sqrt(cases)
    drawn = gathered(values - centre)
    errors = np.maximum(drawn.std(axis=1) / np.sqrt(cases - 1), 1e-9 * error + LAST_DECIMAL)
    below, above = np.quantile(drawn.mean(axis=1) / errors, [0.025, 0.975])
    return centre - above * error, centre - below * error


@pytest.mark.parametrize(("kind", "cases"), SAMPLES)
def test_counts_give_the_limits_of_gathered_cases(kind, cases):
    values = sample(kind, cases)
    np.testing.assert_allclose(limits(values[None]), gathered_limits(values), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("kind", "cases"), SAMPLES)
def test_counts_give_the_interval_of_gathered_cases(kind, cases):
    values = np.stack([sample(kind, cases), sample(kind, cases)[::-1] ** 2], axis=1)
    expected = np.quantile(gathered(values, seed=5).mean(axis=1), [0.025, 0.975], axis=0)
    np.testing.assert_allclose(mean_interval(values, seed=5), expected, rtol=0, atol=1e-14)


def test_each_end_of_a_ratio_is_where_the_limits_of_gathered_cases_cross_zero():
    rng = np.random.default_rng(2)
    level = rng.uniform(0.6, 0.9, size=10)
    loss = rng.normal(-0.03, 0.02, size=10)
    low, high = ratio_interval(loss[None], level[None], None, 0)
    assert gathered_limits(loss - low / 100 * level)[0] == pytest.approx(0, abs=1e-7)
    assert gathered_limits(loss - high / 100 * level)[1] == pytest.approx(0, abs=1e-7)


def tables(shift):
    """Return the per-case tables of a full network and of one that differs from it."""
    dice = np.random.default_rng(4).uniform(0.6, 0.9, size=(2, 10))
    full, small = (
        pd.DataFrame({"case": [f"case{n}" for n in range(10)], "class": "liver", "dice": values}) for values in dice
    )
    return full, small.assign(dice=small["dice"] - shift)


@pytest.fixture
def resampled(monkeypatch):
    """Return the list of all sets of values that are resampled from now on."""
    found = []
    original = intervals._resampled_means

    def recorded(values, seed):
        found.append(values.tobytes())
        return original(values, seed)

    monkeypatch.setattr(intervals, "_resampled_means", recorded)
    return found


def test_a_change_is_resampled_once_however_often_it_is_asked_for(resampled):
    full, small = tables(0.0123)
    first = change(full, small)
    assert change(full.sample(frac=1, random_state=0), small.copy()) == first
    assert len(resampled) == 1


def test_a_change_without_interval_is_the_same_number_and_is_not_resampled(resampled):
    full, small = tables(0.0234)
    percent = change_percent(full, small)
    assert not resampled
    assert percent == change(full, small).percent


@pytest.mark.parametrize("twice", [True, False])
def test_seeds_with_other_cases_or_a_case_twice_are_refused(twice):
    full, _ = tables(0)
    other = full if twice else full.assign(case=full["case"].replace("case3", "case33"))
    mixed = pd.concat([full.assign(seed=0), other.assign(seed=0 if twice else 1)])
    with pytest.raises(ValueError, match="same cases"):
        change(mixed, mixed)
