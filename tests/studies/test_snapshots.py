"""Which slices of a study are shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from vitrim.compression.depth_procedure import shown_depth
from vitrim.studies.snapshots import choose_cases, differing_slices


class Above(nn.Module):
    """Predicts label 1 where the image is above a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.level - images, images - self.level], dim=1)


def result(level: float, dice: dict[str, float]) -> Any:
    rows = [{"case": c, "class": "organ", "dice": d, "reference_voxels": 9} for c, d in dice.items()]
    return SimpleNamespace(cases=pd.DataFrame(rows), network=lambda: Above(level))


def prepared(differing: int) -> Any:
    """Six slices with a label on all but the first; slice `differing` has most pixels between 0.4 and 0.6."""
    labels = np.zeros((6, 4, 4), np.uint8)
    labels[1:, :2] = 1
    labels[3, :3] = 1  # the fullest
    images = np.zeros((6, 1, 4, 4), np.float32)
    images[differing, 0, :3] = 0.5
    images[(differing + 1) % 6, 0, 0] = 0.5
    return SimpleNamespace(images=images, labels=labels)


def test_the_slice_shown_is_the_one_where_the_networks_differ_most() -> None:
    dice = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.6, "e": 0.8}
    cases = {"a": prepared(2), "b": prepared(4), "d": prepared(1), "c": prepared(5), "e": prepared(5)}
    data: Any = SimpleNamespace(
        cache=SimpleNamespace(case=cases.__getitem__), cases=SimpleNamespace(layout="decathlon")
    )
    found = differing_slices(result(0.4, dice), result(0.6, dice), data)
    assert found.cases == ["a", "c", "b"]  # best, median, worst
    assert found.numbers == [2, 5, 4]
    assert found.images.shape == (3, 1, 4, 4)


def test_networks_that_agree_are_shown_on_the_fullest_slice() -> None:
    dice = {"a": 0.9}
    data: Any = SimpleNamespace(
        cache=SimpleNamespace(case=lambda case: prepared(2)), cases=SimpleNamespace(layout="decathlon")
    )
    assert differing_slices(result(0.4, dice), result(0.4, dice), data).numbers == [3]
    assert differing_slices(result(0.4, dice), None, data).numbers == [3]


def test_a_class_that_the_reference_lacks_does_not_choose_a_case() -> None:
    one = result(0.5, {"a": 0.9, "b": 0.8, "c": 0.7})
    wrong = {"case": "a", "class": "other", "dice": 0.0, "reference_voxels": 0}
    one.cases = pd.concat([one.cases, pd.DataFrame([wrong])])
    assert choose_cases(one) == ["a", "b", "c"]


def test_the_depth_shown_is_the_decided_one_or_the_smallest() -> None:
    assert shown_depth(3, [1, 3]) == 3
    assert shown_depth(12, [1, 3]) == 1
    assert shown_depth(None, []) is None
