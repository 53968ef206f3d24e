"""Peak memory counts only tensors that are in memory at the same time."""

import numpy as np
import torch
from torch import nn

from vitrim.evaluation.cost import measure_cost
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
    return measure_cost(Chain(steps), np.zeros((8, 2, 256, 256), np.float32), CPU, 1)["peak_memory_mib"]


def test_peak_memory_does_not_grow_with_the_length_of_a_chain():
    tensor = 8 * 2 * 256 * 256 * 4 / MIB
    assert peak(2) == peak(10)
    assert 2 * tensor <= peak(10) <= 4 * tensor


def test_weights_are_counted():
    small, large = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    large.spare = nn.Parameter(torch.zeros(4 * MIB // 4))
    images = np.zeros((8, 2, 64, 64), np.float32)
    difference = (
        measure_cost(large, images, CPU, 1)["peak_memory_mib"] - measure_cost(small, images, CPU, 1)["peak_memory_mib"]
    )
    assert difference == 4.0
