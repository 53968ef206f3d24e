"""Where tokens lie over an image is found out, or refused, but not made up."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from vitrim.attention.tokens import distances, mean_distance
from vitrim.errors import InputError
from vitrim.token_grid import find_grid


@pytest.mark.parametrize(
    ("tokens", "image", "grid", "prefix"),
    [
        (196, (224, 224), (14, 14), 0),
        (197, (224, 224), (14, 14), 1),
        (198, (224, 224), (14, 14), 2),
        (201, (224, 224), (14, 14), 5),
        (257, (224, 224), (16, 16), 1),
        (50, (224, 224), (7, 7), 1),
        (64, (128, 128), (8, 8), 0),
        (98, (112, 224), (7, 14), 0),
        (99, (224, 112), (14, 7), 1),
        (4, (32, 32), (2, 2), 0),
    ],
)
def test_the_grid_is_that_of_square_patches(
    tokens: int, image: tuple[int, int], grid: tuple[int, int], prefix: int
) -> None:
    assert find_grid(tokens, image) == (grid, prefix)


def test_a_count_that_fits_no_grid_is_refused() -> None:
    with pytest.raises(InputError, match=r"203 tokens fit no grid of square patches of a 224×224 image"):
        find_grid(203, (224, 224))


def test_what_the_model_says_of_itself_goes_before_guesses() -> None:
    assert find_grid(24, (64, 64), model=SimpleNamespace(token_grid=(4, 6))) == ((4, 6), 0)
    assert find_grid(18, (64, 64), model=SimpleNamespace(num_prefix_tokens=2)) == ((4, 4), 2)
    assert find_grid(16, (64, 64), model=SimpleNamespace(num_prefix_tokens=1)) == (
        (4, 4),
        0,
    )  # put in later, as in CaiT


def test_what_is_given_counts() -> None:
    assert find_grid(27, (64, 64), grid=(4, 6)) == ((4, 6), 3)
    assert find_grid(19, (64, 64), prefix_tokens=3) == ((4, 4), 3)
    with pytest.raises(InputError, match="16 tokens, which is not a grid of 4×5"):
        find_grid(16, (64, 64), grid=(4, 5))
    with pytest.raises(InputError, match="17 tokens, which is not a grid of 4×4 and 2 tokens before it"):
        find_grid(17, (64, 64), grid=(4, 4), prefix_tokens=2)


def test_a_single_token_has_no_distances() -> None:
    with pytest.raises(InputError, match="one token"):
        find_grid(1, (16, 16))


def test_distances_are_between_centres_in_the_unit_of_the_step() -> None:
    assert distances((2, 3))[0, 5] == pytest.approx(math.hypot(1, 2))
    assert distances((2, 3), (16.0, 8.0))[0, 5] == pytest.approx(math.hypot(16, 16))
    assert distances((2, 3)).diagonal().abs().max() == 0
    assert mean_distance((1, 2)) == pytest.approx(0.5)
