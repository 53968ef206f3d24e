"""An argument that is no number where one is needed is an InputError, from every public function that takes one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import vitrim

NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=3).eval()


@pytest.mark.parametrize("depth", [1.5, 1.0, "2", None, True, NAN, [1], 0, 4, -1])
def test_a_depth_is_a_whole_number(depth: Any, network: Any) -> None:
    with pytest.raises(vitrim.InputError):
        vitrim.truncate(network, depth)


def test_a_numpy_integer_is_a_whole_number(network: Any) -> None:
    assert vitrim.truncate(network, np.int64(2)).depth == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [NAN, INFINITE, 0, -1, "a", "1", None, True])
def test_a_threshold_is_a_number_above_0(threshold: Any, network: Any) -> None:
    profile = vitrim.profile_attention(network, [torch.zeros(2, 3, 32, 32)])
    with pytest.raises(vitrim.InputError, match="threshold"):
        vitrim.decide_depth(profile, threshold=threshold)


@pytest.mark.parametrize("patch", [0, -1, NAN, "8", (8, 0), (8, 8, 8), [True, 8], object()])
def test_a_patch_has_a_size(patch: Any, network: Any) -> None:
    with pytest.raises(vitrim.InputError, match="patch"):
        vitrim.profile_attention(network, [torch.zeros(2, 3, 32, 32)], patch=patch)


@pytest.mark.parametrize("blocks", [None, 1, "12", [0], ["1"], [1.5], [True], [9]])
def test_blocks_are_numbers_of_blocks(blocks: Any, network: Any) -> None:
    with pytest.raises(vitrim.InputError, match="block"), vitrim.without_exchange(network, blocks):
        network(torch.zeros(1, 3, 32, 32))
