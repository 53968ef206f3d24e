"""How good a network is, per case in 3D on the original grid."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from torch import nn

from vitrim.config import DataConfig, TrainConfig
from vitrim.cost import BATCH, placed
from vitrim.data.cases import CaseSet
from vitrim.data.preprocess import Preparation
from vitrim.data.readers import load_volume
from vitrim.data.slices import SliceCache
from vitrim.errors import InputError
from vitrim.metrics import case_metrics
from vitrim.predict import predict_slices
from vitrim.progress import Stage


@dataclass(frozen=True)
class EvaluationData:
    """The cases of a study, as they are on disk and as the networks see them."""

    config: DataConfig
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
    with placed(network, config):
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
                for row in case_metrics(
                    prediction, volume.label, data.cases.classes, volume.spacing, data.cases.regions
                )
            ]
            if stage:
                stage.advance(note=identifier)
    return pd.DataFrame(rows)
