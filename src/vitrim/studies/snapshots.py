"""Stores slices for the report, with the prediction and the attention of every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitrim.attention.maps import raw_maps
from vitrim.data.cache import PreparedData
from vitrim.data.sampling import fullest_slice
from vitrim.evaluation.segment import predict_slices
from vitrim.files import write_arrays
from vitrim.studies.trial import Result


def choose_cases(full: Result) -> list[str]:
    """Return the best, median and worst case by the full network's mean Dice; fewer if there are fewer than 3 cases."""
    order = full.cases.groupby("case")["dice"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    places = dict.fromkeys([0, len(order) // 2, len(order) - 1])
    return [str(order[place]) for place in places]


@dataclass(frozen=True)
class Slices:
    """Slices as the networks get them: images (n, C, H, W), reference (n, H, W), their cases and slice numbers."""

    cases: list[str]
    numbers: list[int]
    images: np.ndarray
    reference: np.ndarray


def choose_slices(full: Result, data: PreparedData) -> Slices:
    """Return the fullest slice (most classes, then most labelled pixels) of the best, the median and the worst case."""
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
    """Write `examples.npz`: the slices and the prediction of every network.

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
    write_arrays(path, arrays)


def write_explorer(
    path: Path,
    networks: Mapping[int, nn.Module],
    images: np.ndarray,
    *,
    grid: tuple[int, int],
    cases: Sequence[str],
    slices: Sequence[int],
    reference: np.ndarray | None = None,
    segment: bool = True,
) -> None:
    """Run every network on the slices and write `explorer.npz`, the attention of each patch to all patches.

    Arrays: case (n,), slice (n,), grid (2,), image (n, H, W) and, if given, reference (n, H, W). For each network of k
    blocks: mean_<k> (n, k, N, N), the attention averaged over heads; heads_<k>_<block> (heads, N, N), the attention of
    every head, only for the first slice because it needs twelve times the space; and prediction_<k> (n, H, W).
    Attention is float16.

    Args:
        path: output file; it is written completely or not at all.
        networks: networks by their number of blocks; a network without blocks gets only a prediction.
        images: input of the networks (n, C, H, W).
        grid: numbers of rows and columns of patches.
        cases: case id of each slice.
        slices: number of each slice in its case.
        reference: label maps (n, H, W) on the same pixels.
        segment: whether the networks return logits (B, K, H, W); if not, there are no predictions.

    Raises:
        InputError: if attention cannot be captured, or if the networks do not accept the images.
    """
    images = np.asarray(images, dtype=np.float32)
    arrays: dict[str, np.ndarray] = {
        "case": np.array([str(case) for case in cases]),
        "slice": np.array([int(index) for index in slices]),
        "grid": np.array(grid),
        "image": images[:, 0],
    }
    if reference is not None:
        arrays["reference"] = np.asarray(reference, dtype=np.uint8)
    for blocks, network in networks.items():
        if segment:
            arrays[f"prediction_{blocks}"] = predict_slices(network.eval(), images)
        if blocks == 0:
            continue
        means = []
        for index, image in enumerate(torch.from_numpy(images)):
            maps = raw_maps(network, image[None], None, heads=True, grid=grid)
            means.append(np.stack([block.mean(axis=0) for block in maps.values()]))
            if index == 0:
                arrays |= {f"heads_{blocks}_{block}": part.astype(np.float16) for block, part in maps.items()}
        arrays[f"mean_{blocks}"] = np.stack(means).astype(np.float16)
    write_arrays(path, arrays)
