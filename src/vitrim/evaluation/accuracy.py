"""Accuracy of a network: Dice, HD95 and surface Dice per case, in 3D on the original grid."""

from __future__ import annotations

import pandas as pd
from torch import nn

from vitrim.data.cache import PreparedData
from vitrim.data.readers import LAYOUTS
from vitrim.errors import DataError
from vitrim.evaluation.segment import BATCH, predict_slices
from vitrim.hardware import Hardware
from vitrim.metrics.segmentation import case_metrics
from vitrim.progress import Stage


def evaluate_cases(
    network: nn.Module, data: PreparedData, ids: tuple[str, ...], hardware: Hardware, stage: Stage | None = None
) -> pd.DataFrame:
    """Segment the cases `ids` and compare the result with the reference on the original grid.

    Returns one row per case and class: case, class, dice, hd95, surface_dice, reference_voxels, predicted_voxels,
    hd95_unit ("mm"; if the spacing is not known, "voxels", or "pixels" for pictures). `vitrim.metrics.segmentation`
    describes the values for empty masks. One case is in memory at a time. Raises DataError if a case has no label.
    """
    rows = []
    unknown = "pixels" if LAYOUTS[data.cases.layout].planar else "voxels"
    with hardware.running(network):
        for id in ids:
            prepared = data.cache.case(id)
            if prepared.reference is None:
                raise DataError(f"case {id} has no label: it cannot be evaluated")
            labels = predict_slices(network, prepared.images, BATCH)
            prediction = data.preprocessing.restore(labels, prepared.record)
            unit = unknown if prepared.spacing is None else "mm"
            found = case_metrics(
                prediction, prepared.reference, data.cases.classes, prepared.spacing, data.cases.regions
            )
            rows += [{"case": id, **row, "hd95_unit": unit} for row in found]
            if stage:
                stage.advance(note=id)
    return pd.DataFrame(rows)
