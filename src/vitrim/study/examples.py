"""What the report shows: a few slices with every network's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitrim.evaluate import EvaluationData
from vitrim.files import replacing
from vitrim.predict import predict_slices
from vitrim.study.trial import Result


def choose_cases(full: Result) -> list[str]:
    """Best, median and worst case by the full network's average Dice, in this order (fewer where there are not three)."""
    order = full.cases.groupby("case")["dice"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    places = dict.fromkeys([0, len(order) // 2, len(order) - 1])
    return [str(order[place]) for place in places]


def fullest_slice(labels: np.ndarray) -> int:
    """Index of the slice of (S, H, W) that shows most classes, and of those the most labelled one."""
    classes = [len(np.unique(part)) for part in labels]
    voxels = [int(np.count_nonzero(part)) for part in labels]
    return max(range(len(labels)), key=lambda index: (classes[index], voxels[index]))


def write_examples(path: Path, results: Sequence[Result], data: EvaluationData) -> None:
    """Write `examples.npz`: one slice of the best, the median and the worst case, on the networks' grid.

    Arrays: case (n,), slice (n,), image (n, H, W), reference (n, H, W), and prediction_<network>_<blocks> (n, H, W).
    """
    cases = choose_cases(results[0])
    images, references, slices = [], [], []
    for case in cases:
        prepared = data.cache.case(case)
        assert prepared.labels is not None  # evaluated cases have a reference
        index = fullest_slice(prepared.labels)
        slices.append(index)
        images.append(np.array(prepared.images[index]))
        references.append(np.array(prepared.labels[index]))
    stack = np.stack(images)
    arrays = {
        "case": np.array(cases),
        "slice": np.array(slices),
        "image": stack[:, 0],
        "reference": np.stack(references),
    }
    for result in results:
        name = f"prediction_{result.trial.network.name}_{result.trial.blocks}"
        arrays[name] = predict_slices(result.network(), stack)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
