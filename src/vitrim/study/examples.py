"""What the report shows: a few slices with every network's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.evaluate import EvaluationData
from vitrim.files import replacing
from vitrim.predict import predict_slices
from vitrim.study.trial import Result


def choose_cases(full: Result) -> list[str]:
    """Best, median and worst case by the full network's Dice, in this order; fewer where there are not three."""
    order = full.cases.groupby("case")["dice"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    places = dict.fromkeys([0, len(order) // 2, len(order) - 1])
    return [str(order[place]) for place in places]


def fullest_slice(labels: np.ndarray) -> int:
    """Index of the slice of (S, H, W) that shows most classes, and of those the most labelled one."""
    classes = [len(np.unique(part)) for part in labels]
    voxels = [int(np.count_nonzero(part)) for part in labels]
    return max(range(len(labels)), key=lambda index: (classes[index], voxels[index]))


@dataclass(frozen=True)
class Slices:
    """A few slices on the networks' grid: images (n, C, H, W), reference (n, H, W), and where they come from."""

    cases: list[str]
    numbers: list[int]
    images: np.ndarray
    reference: np.ndarray


def choose_slices(full: Result, data: EvaluationData) -> Slices:
    """The fullest slice of the best, the median and the worst case."""
    cases = choose_cases(full)
    numbers, images, references = [], [], []
    for case in cases:
        prepared = data.cache.case(case)
        assert prepared.labels is not None  # evaluated cases have a reference
        numbers.append(fullest_slice(prepared.labels))
        images.append(np.array(prepared.images[numbers[-1]]))
        references.append(np.array(prepared.labels[numbers[-1]]))
    return Slices(cases, numbers, np.stack(images), np.stack(references))


def write_examples(path: Path, slices: Slices, results: Sequence[Result]) -> None:
    """Write `examples.npz`: the slices and what every network makes of them.

    Arrays: case (n,), slice (n,), image (n, H, W), reference (n, H, W), and prediction_<network>_<blocks> (n, H, W).
    """
    arrays: dict[str, Any] = {
        "case": np.array(slices.cases),
        "slice": np.array(slices.numbers),
        "image": slices.images[:, 0],
        "reference": slices.reference,
    }
    for result in results:
        name = f"prediction_{result.trial.network.name}_{result.trial.blocks}"
        arrays[name] = predict_slices(result.network(), slices.images)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
