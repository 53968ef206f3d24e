"""Reads numbers from a GPU one step late, so that no step waits for the card."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


class LateValues:
    """The values of one number per step, in order. On a GPU a value arrives when the next step has been started."""

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self._coming: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def add(self, value: Tensor) -> list[float]:
        """Add the value (a tensor of one number) of a step; return the values that can be read without waiting."""
        if not self.on_gpu:
            return [float(value)]
        number = torch.empty((), dtype=value.dtype, pin_memory=True)
        number.copy_(value, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._coming.append((number, copied))
        return self._read(1)

    def rest(self) -> list[float]:
        """Wait for all values that were not returned yet, and return them."""
        return self._read(0)

    def _read(self, left: int) -> list[float]:
        values = []
        while len(self._coming) > left:
            number, copied = self._coming.popleft()
            copied.synchronize()
            values.append(float(number))
        return values
