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
from vitrim.compression.depth_procedure import shown_depth
from vitrim.data.cache import PreparedData, SliceDataset
from vitrim.data.readers import LAYOUTS
from vitrim.data.sampling import evenly_spaced, fullest_slice
from vitrim.evaluation.segment import predict_slices
from vitrim.files import write_arrays
from vitrim.metrics.statistics import case_dice
from vitrim.studies.trial import Result, Trial
from vitrim.training.augmentation import Augmented

CASES, EPOCHS = 3, 4
"""Training cases and epochs of which the report shows augmented slices."""

LOOKED_AT = 12
"""Slices of a case in which the largest difference of two networks is looked for."""


def choose_cases(full: Result) -> list[str]:
    """Return the best, median and worst case by the full network's Dice; fewer if there are fewer than 3 cases."""
    order = case_dice(full.cases).index.tolist()
    places = dict.fromkeys([0, len(order) // 2, len(order) - 1]) if order else {}
    return [str(order[place]) for place in places]


@dataclass(frozen=True)
class Slices:
    """Slices as the networks get them: images (n, C, H, W), reference (n, H, W), their cases and slice numbers."""

    cases: list[str]
    numbers: list[int]
    images: np.ndarray
    reference: np.ndarray
    pictures: bool = False
    """Whether the images are pictures, whose channels are colours"""


def grey(images: np.ndarray, pictures: bool) -> np.ndarray:
    """Return what is shown of images (n, C, H, W), as (n, H, W): the mean of the colours, or else the first channel."""
    return images.mean(axis=1) if pictures else images[:, 0]


def choose_slices(full: Result, data: PreparedData) -> Slices:
    """Return the fullest slice (most classes, then most labelled pixels) of the best, the median and the worst case."""
    cases = choose_cases(full) or [str(full.cases["case"].iloc[0])]
    return _slices(cases, [fullest_slice(_labels(data, case)) for case in cases], data)


def differing_slices(full: Result, truncated: Result | None, data: PreparedData) -> Slices:
    """Return a slice of the best, the median and the worst case: the one where the two networks differ in most pixels.

    Looks at `LOOKED_AT` evenly spaced slices with a label. Without a truncated network, and where they do not differ,
    it is the fullest slice.
    """
    cases = choose_cases(full)
    networks = [] if truncated is None else [full.network(), truncated.network()]
    return _slices(cases, [_differing(networks, data, case) for case in cases], data)


def _differing(networks: Sequence[nn.Module], data: PreparedData, case: str) -> int:
    labels = _labels(data, case)
    fullest = fullest_slice(labels)
    labelled = [index for index in range(len(labels)) if labels[index].any()]
    if not networks or not labelled:
        return fullest
    indices = list(dict.fromkeys([fullest, *evenly_spaced(labelled, LOOKED_AT)]))
    images = np.array(data.cache.case(case).images[indices])
    first, second = (predict_slices(network, images) for network in networks)
    return indices[int(np.argmax((first != second).sum(axis=(1, 2))))]  # the fullest comes first among equals


def _labels(data: PreparedData, case: str) -> np.ndarray:
    labels = data.cache.case(case).labels
    assert labels is not None  # evaluated cases have a reference
    return labels


def _slices(cases: list[str], numbers: list[int], data: PreparedData) -> Slices:
    images = [np.array(data.cache.case(case).images[number]) for case, number in zip(cases, numbers, strict=True)]
    references = [np.array(_labels(data, case)[number]) for case, number in zip(cases, numbers, strict=True)]
    pictures = LAYOUTS[data.cases.layout].planar
    if not cases:
        return Slices([], [], np.empty(0), np.empty(0), pictures)
    return Slices(cases, numbers, np.stack(images), np.stack(references), pictures)


def write_examples(path: Path, results: Sequence[Result], chosen: Mapping[str, int], data: PreparedData) -> None:
    """Write `examples.npz`: slices of each network, and the prediction of every network on all of them.

    Arrays: network (n,), the network for which the slice was chosen (`differing_slices`); case (n,), slice (n,),
    image (n, H, W), reference (n, H, W), and prediction_<network>_<blocks> (n, H, W).

    Args:
        path: output file.
        results: full and truncated networks of one seed and fold.
        chosen: decided number of blocks by network.
        data: the prepared data of the study.
    """
    shown: list[tuple[str, Slices]] = []
    for name in dict.fromkeys(result.trial.network.name for result in results):
        own = {result.trial.blocks: result for result in results if result.trial.network.name == name}
        full = own[max(own)]
        smaller = shown_depth(chosen.get(name), [blocks for blocks in own if blocks < max(own)])
        slices = differing_slices(full, None if smaller is None else own[smaller], data)
        if slices.cases:
            shown.append((name, slices))
    if not shown:
        return
    images = np.concatenate([slices.images for _, slices in shown])
    arrays: dict[str, Any] = {
        "network": np.array([name for name, slices in shown for _ in slices.cases]),
        "case": np.array([case for _, slices in shown for case in slices.cases]),
        "slice": np.array([number for _, slices in shown for number in slices.numbers]),
        "image": grey(images, shown[0][1].pictures),
        "reference": np.concatenate([slices.reference for _, slices in shown]),
    }
    for result in results:
        key = f"prediction_{result.trial.network.name}_{result.trial.blocks}"
        arrays[key] = predict_slices(result.network(), images)
    write_arrays(path, arrays)


def write_training_slices(path: Path, train: Sequence[str], data: PreparedData) -> None:
    """Write `slices.npz`: the fullest slice of up to three training cases, for the report of a study that is running.

    Arrays: case (n,), slice (n,), image (n, H, W) and label (n, H, W).
    """
    cases = list(evenly_spaced(train, CASES))
    found = _slices(cases, [fullest_slice(_labels(data, case)) for case in cases], data)
    arrays = {
        "case": np.array(found.cases),
        "slice": np.array(found.numbers),
        "image": grey(found.images, found.pictures),
        "label": found.reference,
    }
    write_arrays(path, arrays)


def write_augmented(path: Path, trial: Trial, data: PreparedData) -> None:
    """Write `augmented.npz`: training slices of up to three cases, and what the first epochs of a trial make of them.

    Arrays: case (n,), slice (n,), image (n, H, W) and label (n, H, W) as they are, and changed_image (n, epochs, H, W)
    and changed_label (n, epochs, H, W).
    """
    plain = SliceDataset(data.cache, trial.split.train, empty_slices=trial.empty_slices)
    changing = Augmented(plain, trial.training.augment, trial.seed)
    chosen = []
    for case in evenly_spaced(trial.split.train, CASES):
        labels = data.cache.case(case).labels
        assert labels is not None  # training cases have a reference
        wanted = (case, fullest_slice(labels))
        chosen += [number for number, place in enumerate(plain.index) if place == wanted]
    before = [plain[number] for number in chosen]
    after = [[changing[number + epoch * len(plain)] for epoch in range(EPOCHS)] for number in chosen]
    arrays = {
        "case": np.array([plain.index[number][0] for number in chosen]),
        "slice": np.array([plain.index[number][1] for number in chosen]),
        "image": np.stack([item["image"][0].numpy() for item in before]),
        "label": np.stack([item["label"].numpy() for item in before]),
        "changed_image": np.stack([[item["image"][0].numpy() for item in row] for row in after]),
        "changed_label": np.stack([[item["label"].numpy() for item in row] for row in after]),
    }
    write_arrays(path, arrays)


def write_explorer(
    path: Path,
    networks: Mapping[int, nn.Module],
    images: np.ndarray,
    *,
    grid: tuple[int, ...],
    cases: Sequence[str],
    slices: Sequence[int],
    reference: np.ndarray | None = None,
    segment: bool = True,
    pictures: bool = False,
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
        pictures: whether the channels of the images are colours.

    Raises:
        InputError: if attention cannot be captured, or if the networks do not accept the images.
    """
    images = np.asarray(images, dtype=np.float32)
    arrays: dict[str, np.ndarray] = {
        "case": np.array([str(case) for case in cases]),
        "slice": np.array([int(index) for index in slices]),
        "grid": np.array(grid),
        "image": grey(images, pictures),
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
