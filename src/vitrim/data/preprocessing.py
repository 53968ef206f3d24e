"""From a volume to the slices that a network sees, as a list of steps that can be taken back.

What was done to a case is written down as data (`PreparedCase.record`), so that a prediction finds its way back to the
original grid from the record alone.
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
    """A case as a network sees it."""

    images: np.ndarray
    """float32 (S, C, H, W)"""
    labels: np.ndarray | None
    """uint8 (S, H, W)"""
    record: Record
    """What was done, JSON-able; `Preprocessing.restore` needs nothing else."""
    reference: np.ndarray | None = None
    """uint8 (X, Y, Z), the label map on the original grid; only where it was kept (`vitrim.data.cache`)."""

    @property
    def pixel_spacing(self) -> tuple[float, float] | None:
        """Size in mm of a pixel along rows' and columns' direction (down, across); None where it is not known."""
        spacing = self.record["pixel_spacing"]
        return None if spacing is None else (spacing[0], spacing[1])

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Size in mm of a voxel of the original grid; None where it is not known."""
        spacing = self.record["spacing"]
        return None if spacing is None else (spacing[0], spacing[1], spacing[2])


@dataclass(frozen=True)
class Preprocessing:
    """The steps of a data set, in order: slicing first, scaling to the network's size last."""

    steps: tuple[Any, ...]

    @classmethod
    def from_config(cls, config: DataConfig) -> Preprocessing:
        """The steps that a configuration asks for (paper, 3.5)."""
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
        """The steps and their settings, JSON-able: two preparations are the same if these are."""
        return [{"step": NAMES[type(step)], **asdict(step)} for step in self.steps]

    def apply(self, volume: Volume) -> PreparedCase:
        """Take a volume (C, X, Y, Z) through all steps."""
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
        """Take a label map (S, H, W) back to the original grid (X, Y, Z), step by step in reverse."""
        return restore(labels, record)


def restore(values: np.ndarray, record: Record, outside: float = 0) -> np.ndarray:
    """Take a label map, or a map of one class's probability, (S, H, W) back to the grid (X, Y, Z) of `record`.

    `record` is that of `PreparedCase`. Whole numbers are scaled by the nearest neighbour, others bilinearly, with pixel
    centres or corners aligned as on the way there. What a crop cut away becomes `outside`: 0, the background's label;
    for the background's probability, give 1.
    """
    for step in reversed(record["steps"]):
        values = STEPS[step["step"]].restore(values, step, outside)
    return np.ascontiguousarray(values)


def shown(volume: np.ndarray, record: Record) -> np.ndarray:
    """Turn an array (X, Y, Z) of the original grid into slices (S, rows, columns) as a network sees them, unscaled."""
    turn = record["steps"][0]
    return turned(volume, turn["order"], turn["flips"])


def shown_spacing(record: Record) -> tuple[float, float] | None:
    """Millimetres of a pixel of `shown`, down and across; None where they are not known."""
    if record["spacing"] is None:
        return None
    _, down, across = (record["spacing"][axis] for axis in record["steps"][0]["order"])
    return down, across


def _pixel_spacing(volume: Volume, records: list[Record]) -> list[float] | None:
    """mm from pixel to pixel of the finished slices, down and across; an anisotropic resize makes these two differ."""
    if volume.spacing is None:
        return None
    spacing = [volume.spacing[axis] for axis in records[0]["order"][1:]]
    scaling = records[-1]
    # with aligned corners, it is the steps between pixels that fill the same length, not the pixels
    less = 1 if scaling["step"] == "zoom" else 0
    return [
        mm * (old - less) / (new - less) if old > 1 else mm / new
        for mm, old, new in zip(spacing, scaling["before"], scaling["after"], strict=True)
    ]
