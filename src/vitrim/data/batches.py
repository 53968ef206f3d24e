"""The order in which slices are learned from: a function of seed and epoch, so that any epoch can be begun again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class Shuffled(Sampler[int]):
    """All items, shuffled anew in each epoch; the order follows from seed and epoch alone."""

    def __init__(self, items: int, seed: int, first: int = 0) -> None:
        """`first` is the epoch to begin with, counted from 0."""
        self.items, self.seed, self.first, self.epoch = items, seed, first, first

    def set_epoch(self, epoch: int) -> None:
        """Say how many epochs after the first comes next; Lightning does."""
        self.epoch = self.first + epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        yield from torch.randperm(self.items, generator=generator).tolist()

    def __len__(self) -> int:
        return self.items


class Batches(Sampler[list[int]]):
    """Whole batches of a sampler's items; of several devices, each takes its own part of every batch.

    So a batch holds the same items on one device as on several together. The last, incomplete batch is dropped.
    """

    def __init__(self, sampler: Shuffled, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.sampler, self.batch_size, self.rank, self.ranks = sampler, batch_size, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        share = self.batch_size // self.ranks
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            begin = start + self.rank * share
            yield order[begin : begin + share]

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size


def mixed(*numbers: int) -> int:
    """One seed of several numbers, different for each combination of them."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
