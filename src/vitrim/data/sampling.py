"""Choose slices and their order: training batches, evenly spaced cases and slices, example slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from vitrim.data.cache import SliceCache
from vitrim.progress import Stage

T = TypeVar("T")


class Shuffled(Sampler[int]):
    """Sampler of all items in a new random order each epoch. The order depends only on the seed and the epoch."""

    def __init__(self, items: int, seed: int, first: int = 0) -> None:
        """Sample `items` items; `first` is the first epoch, counted from 0."""
        self.items, self.seed, self.first, self.epoch = items, seed, first, first

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; 0 is the epoch `first`. Lightning calls this."""
        self.epoch = self.first + epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        yield from torch.randperm(self.items, generator=generator).tolist()

    def __len__(self) -> int:
        return self.items


class Batches(Sampler[list[int]]):
    """Sampler of full batches. With several devices, each device gets its own part of every batch.

    A batch therefore holds the same items on one device and on several. The last, incomplete batch is dropped.
    """

    def __init__(
        self, sampler: Shuffled, batch_size: int, rank: int = 0, ranks: int = 1, *, numbered: bool = False
    ) -> None:
        """Make batches of the items of `sampler`. With `numbered`, item i in epoch e is i + e × all items."""
        self.sampler, self.batch_size, self.rank, self.ranks, self.numbered = sampler, batch_size, rank, ranks, numbered
        self.first = 0
        """Number, from 0, of the batch with which the next pass begins: a resumed training leaves out those it did."""

    def __iter__(self) -> Iterator[list[int]]:
        before = self.sampler.epoch * len(self.sampler) if self.numbered else 0
        order = [before + item for item in self.sampler]
        share = self.batch_size // self.ranks
        for start in range(self.first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            begin = start + self.rank * share
            yield order[begin : begin + share]

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size


def mixed(*numbers: int) -> int:
    """Combine several numbers into one seed; different numbers give different seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def evenly_spaced(items: Sequence[T], number: int | None) -> list[T]:
    """Choose `number` of `items`, evenly spaced; all items if `number` is None or at least their count."""
    if number is None or number >= len(items):
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, number)]


def case_images(
    cases: Sequence[str], cache: SliceCache, slices: int | None, stage: Stage
) -> Iterator[tuple[str, Tensor, tuple[float, float] | None]]:
    """Yield for each case its id, `slices` evenly spaced slices (S, C, H, W) and its pixel spacing in mm.

    If `slices` is None, all slices are returned. The spacing is None if it is not known.
    """
    for case in cases:
        prepared = cache.case(case)
        chosen = evenly_spaced(range(len(prepared.images)), slices)
        yield case, torch.from_numpy(np.array(prepared.images[chosen])), prepared.pixel_spacing
        stage.advance(note=case)


def fullest_slice(labels: np.ndarray) -> int:
    """Return the index of the slice of labels (S, H, W) with the most classes.

    If several slices have the same number of classes, the one with the most labelled pixels is returned.
    """
    classes = [len(np.unique(part)) for part in labels]
    pixels = [int(np.count_nonzero(part)) for part in labels]
    return max(range(len(labels)), key=lambda index: (classes[index], pixels[index]))


def example_slice(case: str, cache: SliceCache) -> tuple[int, np.ndarray]:
    """Return the index and image (C, H, W) of a case's `fullest_slice`, or of its middle slice if it has no label."""
    prepared = cache.case(case)
    index = len(prepared.images) // 2 if prepared.labels is None else fullest_slice(prepared.labels)
    return index, np.array(prepared.images[index])
