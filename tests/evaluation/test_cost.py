"""Peak memory counts only tensors that are in memory at the same time."""

import numpy as np
import pytest
import torch
from torch import nn

from vitrim.evaluation.cost import measure_costs
from vitrim.hardware import Hardware

CPU = Hardware("cpu", "32-true")
MIB = 2**20


class Chain(nn.Module):
    """A chain of pointwise operations: only two of its tensors are in memory at the same time."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.steps):
            x = x + self.weight
        return x


def peak(steps: int) -> float:
    return measure_costs([Chain(steps)], np.zeros((8, 2, 256, 256), np.float32), CPU, 1)[0]["peak_memory_mib"]


def test_peak_memory_does_not_grow_with_the_length_of_a_chain():
    tensor = 8 * 2 * 256 * 256 * 4 / MIB
    assert peak(2) == peak(10)
    assert 2 * tensor <= peak(10) <= 4 * tensor


def test_weights_are_counted():
    small, large = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    large.spare = nn.Parameter(torch.zeros(4 * MIB // 4))
    images = np.zeros((8, 2, 64, 64), np.float32)
    costs = measure_costs([small, large], images, CPU, 1)
    assert costs[1]["peak_memory_mib"] - costs[0]["peak_memory_mib"] == pytest.approx(4.0)


def test_networks_that_are_compared_take_turns():
    turns: list[str] = []

    class Noted(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            turns.append(self.name)
            return super().forward(x)

    networks = []
    for name in ("small", "large"):
        networks.append(Noted(2, 2, 1))
        networks[-1].name = name
    measure_costs(networks, np.zeros((8, 2, 16, 16), np.float32), CPU, 3)
    rounds = turns[2:]  # the first call of each measures its memory
    assert rounds == ["small", "small", "large", "large"] * 3
