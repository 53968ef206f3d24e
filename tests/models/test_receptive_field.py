"""The measured reach of a network is correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from vitrim.config.reading import load_study
from vitrim.config.schema import StudyNetwork
from vitrim.models.receptive_field import receptive_reach
from vitrim.studies.control import reach_lines


@pytest.mark.parametrize(
    ("network", "reach"),
    [
        (nn.Conv2d(1, 4, 1), 0),
        (nn.Conv2d(1, 4, 3, padding=1), 1),
        (nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 5, padding=2)), 3),
        (nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3, padding=1)), 2),
        (nn.Sequential(nn.Conv2d(1, 8, 3, padding=4, dilation=4), nn.BatchNorm2d(8)), 4),
    ],
)
def test_the_reach_of_convolutions_is_what_one_counts(network: nn.Module, reach: int) -> None:
    torch.manual_seed(0)
    assert receptive_reach(network, (64, 64)) == reach


def test_halving_and_doubling_again_reaches_as_far_as_the_coarse_pixel() -> None:
    network = nn.Sequential(nn.Conv2d(1, 16, 2, stride=2), nn.MaxPool2d(2), nn.Upsample(scale_factor=4))
    assert receptive_reach(network, (64, 64), samples=12) == 3


def test_attention_sees_everything() -> None:
    class Look(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tokens = image.flatten(2).transpose(1, 2)
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).view_as(image)

    assert receptive_reach(Look(), (32, 32)) >= 28


def test_the_network_that_is_measured_stays_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8))
    receptive_reach(network, (32, 32))
    assert isinstance(network[1], nn.GroupNorm)
    assert network[0].weight.dtype == torch.float32


def test_a_branch_that_starts_at_zero_is_seen_too() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(1, 1, 7, padding=3), nn.BatchNorm2d(1))
            nn.init.zeros_(self.branch[1].weight)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image + self.branch(image)

    assert receptive_reach(Residual(), (64, 64)) == 3


def test_the_example_of_the_control_is_one() -> None:
    """The reach of its CNN is smaller than the distance from a disc to its mark. That of TransUNet's stem is not."""
    study = load_study(str(Path(__file__).parents[2] / "examples" / "longrange.yaml"))
    (line,) = reach_lines(study)
    assert re.search(r"reaches 5\d pixels; a disc's mark is at least 63 away: only the transformer", line), line
    other = study.model_copy(update={"networks": {"transunet": StudyNetwork(), "unetr2d": StudyNetwork()}})
    (line,) = reach_lines(other)
    assert "no control" in line
    assert reach_lines(load_study("demo")) == []
