"""How good a network is, per case in 3D on the original grid, and what it costs to run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from vitrim.config import TrainConfig
from vitrim.data.cases import CaseSet
from vitrim.data.preprocess import Preparation
from vitrim.data.readers import load_volume
from vitrim.data.slices import SliceCache
from vitrim.errors import InputError
from vitrim.metrics import case_metrics
from vitrim.predict import predict_slices
from vitrim.progress import Stage

BATCH = 8
"""Slices in one forward pass when nothing is learned."""


@dataclass(frozen=True)
class EvaluationData:
    """The cases of a study, as they are on disk and as the networks see them."""

    cases: CaseSet
    cache: SliceCache
    preparation: Preparation


def evaluate(
    network: nn.Module, data: EvaluationData, ids: tuple[str, ...], config: TrainConfig, stage: Stage | None = None
) -> pd.DataFrame:
    """Segment the cases `ids` and compare with the reference on the original grid.

    Returns one row a case and class: case, class, dice, hd95, reference_voxels, predicted_voxels, hd95_unit (see
    `case_metrics` for what empty masks give). One case at a time: memory does not grow with their number.
    """
    rows = []
    with _placed(network, config):
        for identifier in ids:
            volume = load_volume(data.cases.case(identifier), data.cases)
            if volume.label is None:
                raise InputError(f"case {identifier} has no label: it cannot be evaluated")
            prepared = data.cache.case(identifier)
            labels = predict_slices(network, prepared.images, BATCH)
            prediction = data.preparation.restore(labels, prepared.record)
            unit = "voxels" if volume.spacing is None else "mm"
            rows += [
                {"case": identifier, **row, "hd95_unit": unit}
                for row in case_metrics(prediction, volume.label, data.cases.classes, volume.spacing)
            ]
            if stage:
                stage.advance(note=identifier)
    return pd.DataFrame(rows)


def measure_cost(
    network: nn.Module, data: EvaluationData, ids: tuple[str, ...], config: TrainConfig, repetitions: int = 3
) -> dict[str, float | str | None]:
    """Time and memory of prediction: milliseconds a slice (best of `repetitions`, batches of 8), peak memory in MiB.

    The peak is that of tensors on the GPU; on the CPU it is None, since a process's memory is not one network's.
    """
    images = np.array(data.cache.case(ids[0]).images[: 2 * BATCH])
    gpu = config.device == "gpu"
    with _placed(network, config):
        predict_slices(network, images[:BATCH], BATCH)
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(repetitions):
            begin = time.perf_counter()
            predict_slices(network, images, BATCH)
            seconds.append(time.perf_counter() - begin)
        peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else None
    return {
        "milliseconds_per_slice": round(1000 * min(seconds) / len(images), 3),
        "peak_memory_mib": round(peak, 1) if peak is not None else None,
        "device": config.device,
    }


@contextmanager
def _placed(network: nn.Module, config: TrainConfig) -> Iterator[None]:
    """Put a network, in eval mode, on the device and under the precision of its training for a while."""
    device = "cuda" if config.device == "gpu" else "cpu"
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    kind = types.get(config.precision, torch.bfloat16)
    network.eval().to(device)
    try:
        with torch.autocast(device, dtype=kind, enabled=config.precision in types):
            yield
    finally:
        network.to("cpu")
