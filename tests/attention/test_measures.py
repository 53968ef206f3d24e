"""Attention measures agree with values computed by hand and with a slow, independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from vitrim.attention.measures import (
    MEASURES,
    checked_measures,
    entropy,
    globality,
    linear_measures,
    measure_maps,
    proximity_correlation,
    query_dependence,
    rollout,
    sampled_queries,
)
from vitrim.attention.tokens import distances, mean_distance, neighbours
from vitrim.errors import InputError

GRIDS = [(4, 4), (2, 5), (5, 3), (1, 6)]
DIRECT = [name for name in MEASURES if name != "rollout_globality"]


def measured(weights: Tensor, grid: tuple[int, int], **options: object) -> dict[str, float]:
    values = measure_maps(weights[None], DIRECT, grid, **options)[0]  # type: ignore[arg-type]
    return dict(zip(DIRECT, values.tolist(), strict=True))


@pytest.mark.parametrize("grid", GRIDS)
def test_attention_to_itself_goes_nowhere(grid: tuple[int, int]) -> None:
    n = grid[0] * grid[1]
    values = measured(torch.eye(n), grid)
    assert values["globality"] == values["distance_patches"] == values["neighbourhood_share"] == 0
    assert values["self_share"] == pytest.approx(1)
    assert values["entropy"] == pytest.approx(0, abs=1e-6)
    assert values["query_dependence"] == pytest.approx(1)  # each query attends to another patch
    assert values["proximity_correlation"] > 0


@pytest.mark.parametrize("grid", GRIDS)
def test_uniform_attention_is_global_and_pools(grid: tuple[int, int]) -> None:
    n = grid[0] * grid[1]
    values = measured(torch.full((n, n), 1 / n), grid)
    assert values["globality"] == pytest.approx(1)
    assert values["distance_patches"] == pytest.approx(mean_distance(grid))
    assert values["self_share"] == pytest.approx(1 / n)
    assert values["entropy"] == pytest.approx(1)
    assert values["query_dependence"] == pytest.approx(0, abs=1e-6)
    assert values["proximity_correlation"] == 0


def test_attention_to_the_eight_neighbours_is_a_convolution() -> None:
    grid = (5, 5)
    touch = neighbours(grid).float()
    values = measured(touch / touch.sum(dim=1, keepdim=True), grid)
    assert values["neighbourhood_share"] == pytest.approx(1)
    assert values["self_share"] == 0
    centre = touch[12] / 8
    assert linear_measures(centre.expand(25, 25), ["distance_patches"], grid).shape == (1,)
    assert (centre * distances(grid)[12]).sum() == pytest.approx((4 + 4 * math.sqrt(2)) / 8)


def test_neighbours_touch_by_side_or_corner_and_stop_at_the_edge() -> None:
    assert neighbours((3, 4)).sum(dim=1).reshape(3, 4).tolist() == [[3, 5, 5, 3], [5, 8, 8, 5], [3, 5, 5, 3]]


def test_attention_to_one_far_token_is_at_its_distance() -> None:
    grid = (3, 5)
    weights = torch.zeros(15, 15)
    weights[:, 14] = 1  # all patches attend to the lower right corner
    values = measured(weights, grid, patch=(16.0, 16.0), spacing=(2.0, 0.5))
    expected = [math.hypot(2 - r, 4 - c) for r in range(3) for c in range(5)]
    assert values["distance_patches"] == pytest.approx(np.mean(expected))
    assert values["distance_pixels"] == pytest.approx(16 * np.mean(expected))
    in_mm = [math.hypot(32 * (2 - r), 8 * (4 - c)) for r in range(3) for c in range(5)]
    assert values["distance_mm"] == pytest.approx(np.mean(in_mm))
    assert values["entropy"] == pytest.approx(0, abs=1e-6)
    assert values["query_dependence"] == pytest.approx(0, abs=1e-6)  # all queries attend to the same patch
    assert values["self_share"] == pytest.approx(1 / 15)
    assert values["neighbourhood_share"] == pytest.approx(3 / 15)


def test_attention_along_a_stripe_is_as_long_as_the_row() -> None:
    grid = (4, 6)
    row = torch.arange(24) // 6
    weights = (row[:, None] == row[None]).float() / 6
    values = measured(weights, grid)
    along = np.mean([abs(a - b) for a in range(6) for b in range(6)])
    assert values["distance_patches"] == pytest.approx(along)
    assert values["globality"] == pytest.approx(along / mean_distance(grid))
    assert values["entropy"] == pytest.approx(math.log(6) / math.log(24))
    assert values["query_dependence"] == pytest.approx(1 - math.log(6) / math.log(24))
    across = measured(weights, grid, patch=(10.0, 1.0))
    assert across["distance_pixels"] == pytest.approx(
        along
    )  # attention stays in its row, so the row size has no effect


def test_attention_that_falls_with_distance_has_proximity_correlation_one() -> None:
    grid = (4, 5)
    assert proximity_correlation((-distances(grid)).softmax(dim=-1), grid) == pytest.approx(1, abs=1e-6)
    assert proximity_correlation(distances(grid).softmax(dim=-1), grid) == pytest.approx(-1, abs=1e-6)


def test_millimetres_are_absent_where_the_spacing_is_unknown() -> None:
    assert math.isnan(measured(torch.eye(6), (2, 3))["distance_mm"])


def test_the_distance_is_that_of_the_vision_transformer_paper() -> None:
    """Published computation of Dosovitskiy et al. 2021, appendix D.8, token by token."""
    patch, length = 16, 4
    weights = torch.rand(3, 16, 16).softmax(dim=-1)
    table = np.zeros((length**2, length**2))
    for i in range(length**2):
        for j in range(length**2):
            xa, ya = i // length, i % length
            xb, yb = j // length, j % length
            table[i, j] = patch * np.sqrt((xa - xb) ** 2 + (ya - yb) ** 2)
    theirs = (weights.numpy() * table).sum(axis=-1).mean(axis=-1)
    ours = linear_measures(weights, ["distance_pixels"], (length, length), (patch, patch))[..., 0]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)


def test_rollout_is_the_product_of_half_attention_half_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 6, 6, generator=generator).double().softmax(dim=-1)
    half = [(a + torch.eye(6).double()) / 2 for a in (first, second)]
    torch.testing.assert_close(rollout(second, rollout(first)), half[1] @ half[0])


def test_rollout_of_attention_to_itself_stays_where_it_is() -> None:
    rolled = None
    for _ in range(3):
        rolled = rollout(torch.eye(9), rolled)
    assert rolled is not None
    assert globality(rolled, (3, 3)) == 0


def test_the_same_queries_are_sampled_every_time() -> None:
    chosen = sampled_queries(196, 32)
    assert torch.equal(chosen, sampled_queries(196, 32))
    assert len(set(chosen.tolist())) == 32
    assert sampled_queries(16, 32).tolist() == list(range(16))


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(InputError, match="no such measure: 'distnace'"):
        checked_measures(["distnace"])


def slow(weights: np.ndarray, grid: tuple[int, int], spacing: tuple[float, float]) -> dict[str, float]:
    """Compute the definitions of docs/definitions.md token by token in float64."""
    n = len(weights)
    place = [(i // grid[1], i % grid[1]) for i in range(n)]
    far = [[math.dist(a, b) for b in place] for a in place]
    in_mm = [[math.hypot(3 * spacing[0] * (a[0] - b[0]), 2 * spacing[1] * (a[1] - b[1])) for b in place] for a in place]
    mean_row = [sum(weights[i][j] for i in range(n)) / n for j in range(n)]
    total = dict.fromkeys(DIRECT, 0.0)
    for i in range(n):
        for j in range(n):
            a = weights[i][j]
            total["distance_patches"] += a * far[i][j]
            total["distance_mm"] += a * in_mm[i][j]
            if i == j:
                total["self_share"] += a
            elif max(abs(place[i][0] - place[j][0]), abs(place[i][1] - place[j][1])) == 1:
                total["neighbourhood_share"] += a
            if a > 0:
                total["entropy"] -= a * math.log(a) / math.log(n)
                total["query_dependence"] += a * math.log(a / mean_row[j]) / math.log(n)
        if len(set(weights[i])) > 1:
            total["proximity_correlation"] += spearmanr(weights[i], -np.round(far[i], 9)).statistic
    values = {name: value / n for name, value in total.items()}
    values["globality"] = values["distance_patches"] / np.mean(far)
    return values


@st.composite
def attention(draw: st.DrawFn) -> tuple[tuple[int, int], np.ndarray]:
    """Draw a grid, and attention over it of any sharpness, with ties and zeros among the weights."""
    grid = draw(st.tuples(st.integers(1, 4), st.integers(2, 4)))
    n = grid[0] * grid[1]
    levels = draw(st.lists(st.integers(0, 6), min_size=n * n, max_size=n * n))
    weights = np.array(levels, dtype=np.float64).reshape(n, n) ** draw(st.sampled_from([0.5, 1, 4]))
    weights += np.eye(n) * (weights.sum(axis=1, keepdims=True) == 0)
    return grid, weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(attention(), st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
def test_measures_agree_with_a_slow_implementation(
    case: tuple[tuple[int, int], np.ndarray], spacing: tuple[float, float]
) -> None:
    grid, weights = case
    expected = slow(weights, grid, spacing)
    found = measured(torch.from_numpy(weights), grid, patch=(3.0, 2.0), spacing=spacing)
    for name, value in expected.items():
        if name != "distance_pixels":
            assert found[name] == pytest.approx(value, abs=1e-6), name


@settings(max_examples=30, deadline=None)
@given(attention())
def test_measures_keep_their_bounds(case: tuple[tuple[int, int], np.ndarray]) -> None:
    grid, weights = case
    found = measured(torch.from_numpy(weights).float(), grid)
    for name in ("self_share", "neighbourhood_share", "entropy", "query_dependence"):
        assert -1e-5 <= found[name] <= 1 + 1e-5, name
    assert -1 - 1e-5 <= found["proximity_correlation"] <= 1 + 1e-5
    assert 0 <= found["distance_patches"] <= math.hypot(*grid)


def test_measures_of_many_maps_are_those_of_each() -> None:
    weights = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)).softmax(dim=-1)
    together = measure_maps(weights, DIRECT, (3, 4))
    for b in range(2):
        for h in range(3):
            torch.testing.assert_close(together[b, h], measure_maps(weights[b, h], DIRECT, (3, 4)), equal_nan=True)
    assert entropy(weights).shape == query_dependence(weights).shape == (2, 3)
