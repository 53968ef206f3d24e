"""Preprocessing: turn a volume into the slices that a network sees, as a list of steps that can be inverted.

`PreparedCase.record` stores what was done to a case as data. This record is enough to bring a prediction back to the
original grid.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Volume
from vitrim.data.transforms import (
    NAMES,
    STEPS,
    CentreCrop,
    Clip,
    Record,
    Resize,
    Slicing,
    Stack,
    Unit,
    Zoom,
    ZScore,
    turned,
)


@dataclass
class PreparedCase:
    """A case after preprocessing, as a network sees it."""

    images: np.ndarray
    """float32 (S, C, H, W)"""
    labels: np.ndarray | None
    """uint8 (S, H, W)"""
    record: Record
    """What was done to the case, as JSON values. `Preprocessing.restore` needs nothing else."""
    reference: np.ndarray | None = None
    """uint8 (X, Y, Z), the label map on the original grid; None if it was not kept (`vitrim.data.cache` keeps it)."""

    @property
    def pixel_spacing(self) -> tuple[float, float] | None:
        """Size of a pixel of the slices in mm (down, across); None if it is not known."""
        spacing = self.record["pixel_spacing"]
        return None if spacing is None else (spacing[0], spacing[1])

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Size of a voxel of the original grid in mm along X, Y, Z; None if it is not known."""
        spacing = self.record["spacing"]
        return None if spacing is None else (spacing[0], spacing[1], spacing[2])


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing steps, in order: slicing first, scaling to the network's image size last."""

    steps: tuple[Any, ...]

    @classmethod
    def from_config(cls, config: DataConfig) -> Preprocessing:
        """Return the steps that a configuration defines (paper, 3.5)."""
        steps: list[Any] = [Slicing(config.axis)]
        if config.clip is not None:
            steps.append(Clip(*config.clip))
        if config.normalize == "zscore":
            steps.append(ZScore())
        if config.normalize == "unit" and config.clip is not None:
            steps.append(Unit(*config.clip))
        if config.crop is not None:
            steps.append(CentreCrop(*config.crop))
        steps.append((Zoom if config.scaling == "zoom" else Resize)(*config.image_size))
        return cls(tuple(steps))

    def describe(self) -> list[Record]:
        """Return the steps and their settings as JSON values. Equal descriptions mean equal preprocessing."""
        return [{"step": NAMES[type(step)], **asdict(step)} for step in self.steps]

    def apply(self, volume: Volume) -> PreparedCase:
        """Apply all steps to a volume (C, X, Y, Z)."""
        stack = Stack(volume.image, volume.label)
        records = []
        for step in self.steps:
            stack, record = step.apply(stack, volume.affine)
            records.append({"step": NAMES[type(step)], **record})
        images = np.ascontiguousarray(stack.images.swapaxes(0, 1), np.float32)
        labels = None if stack.labels is None else np.ascontiguousarray(stack.labels)
        record = {
            "shape": list(volume.shape),
            "affine": volume.affine.tolist(),
            "spacing": None if volume.spacing is None else list(volume.spacing),
            "pixel_spacing": _pixel_spacing(volume, records),
            "steps": records,
        }
        return PreparedCase(images, labels, record)

    def restore(self, labels: np.ndarray, record: Record) -> np.ndarray:
        """Bring a label map (S, H, W) back to the original grid (X, Y, Z) of `record`."""
        return restore(labels, record)


def restore(values: np.ndarray, record: Record, outside: float = 0) -> np.ndarray:
    """Bring a label map, or a probability map of one class, (S, H, W) back to the original grid (X, Y, Z) of `record`.

    `record` is `PreparedCase.record`; its steps are inverted in reverse order. Integers are scaled by the nearest
    neighbour, floats bilinearly, with pixel centres or corners aligned as in the forward step. The region outside a
    crop becomes `outside`: 0 is the background's label; for the background's probability, pass 1.
    """
    for step in reversed(record["steps"]):
        values = STEPS[step["step"]].restore(values, step, outside)
    return np.ascontiguousarray(values)


def shown(volume: np.ndarray, record: Record) -> np.ndarray:
    """Return array (X, Y, Z) on the original grid as slices (S, rows, columns), turned as for a network, unscaled."""
    turn = record["steps"][0]
    return turned(volume, turn["order"], turn["flips"])


def shown_spacing(record: Record) -> tuple[float, float] | None:
    """Return the size in mm (down, across) of a pixel of the slices from `shown`; None if it is not known."""
    if record["spacing"] is None:
        return None
    _, down, across = (record["spacing"][axis] for axis in record["steps"][0]["order"])
    return down, across


def _pixel_spacing(volume: Volume, records: list[Record]) -> list[float] | None:
    """Return the distance in mm between pixels of the final slices (down, across).

    The two differ after an anisotropic resize. None if the voxel size is not known.
    """
    if volume.spacing is None:
        return None
    spacing = [volume.spacing[axis] for axis in records[0]["order"][1:]]
    scaling = records[-1]
    # With aligned corners, the distance between the centres of the corner pixels stays: n - 1 pixels, not n.
    less = 1 if scaling["step"] == "zoom" else 0
    return [
        mm * (old - less) / (new - less) if old > 1 else mm / new
        for mm, old, new in zip(spacing, scaling["before"], scaling["after"], strict=True)
    ]
