"""From a volume to the slices that a network sees, as a list of steps that can be taken back.

What was done to a case is written down as data (`Prepared.record`), so that a prediction finds its way back to the
original grid from the record alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

from vitrim.config import DataConfig
from vitrim.data.cases import Volume

SLICE_AXES = {"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"}
"""What slice number, row and column increase towards: radiological display, so that the patient's left is on the
right and rows run from anterior to posterior or from superior to inferior."""

PLANE_ACROSS = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "R": "sagittal", "L": "sagittal"}
"""Anatomical plane whose slices follow one another along a direction."""

Record = dict[str, Any]


@dataclass
class Stack:
    """A volume on its way to the network."""

    images: np.ndarray
    """float32 (C, S, H, W)"""
    labels: np.ndarray | None
    """uint8 (S, H, W)"""


@dataclass
class Prepared:
    """A case as a network sees it."""

    images: np.ndarray
    """float32 (S, C, H, W)"""
    labels: np.ndarray | None
    """uint8 (S, H, W)"""
    record: Record
    """What was done, JSON-able; `Preparation.restore` needs nothing else."""

    @property
    def pixel_spacing(self) -> tuple[float, float] | None:
        """Size in mm of a pixel along rows' and columns' direction (down, across); None where it is not known."""
        spacing = self.record["pixel_spacing"]
        return None if spacing is None else (spacing[0], spacing[1])


@dataclass(frozen=True)
class Slicing:
    """Turn the volume so that its first axis counts slices.

    For an anatomical `axis` by the affine, shown as a radiologist would see it; `through-plane` is the anatomical plane
    nearest to the scanner's own, across the thickest side of the voxels; for an array axis (0, 1, 2) nothing is turned:
    the two others, in order, are rows and columns.
    """

    axis: str | int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        if isinstance(self.axis, int):
            order, flips = [self.axis, *(n for n in range(3) if n != self.axis)], [False] * 3
        else:
            plane = self.axis if self.axis in SLICE_AXES else _own_plane(affine, stack.images.shape[1:])
            towards = nib.orientations.axcodes2ornt(SLICE_AXES[plane])
            turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), towards)
            order = np.argsort(turn[:, 0]).astype(int).tolist()
            flips = [bool(turn[n, 1] < 0) for n in order]
        record = {"order": order, "flips": flips}
        images = np.stack([_turn(channel, order, flips) for channel in stack.images])
        labels = None if stack.labels is None else _turn(stack.labels, order, flips)
        return Stack(images, labels), record

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        flipped = tuple(n for n, flip in enumerate(record["flips"]) if flip)
        return np.flip(values, flipped).transpose(np.argsort(record["order"]))


@dataclass(frozen=True)
class Clip:
    """Limit intensities to a range, for CT in Hounsfield units."""

    low: float
    high: float

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        return Stack(stack.images.clip(self.low, self.high), stack.labels), asdict(self)

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        return values


@dataclass(frozen=True)
class ZScore:
    """Zero mean and unit standard deviation per volume and channel (paper, 3.5); a constant channel becomes 0."""

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        mean = [float(channel.mean(dtype=np.float64)) for channel in stack.images]
        deviation = [float(channel.std(dtype=np.float64)) for channel in stack.images]
        scale = [value if value > 0 else 1.0 for value in deviation]
        images = np.stack([(c - m) / s for c, m, s in zip(stack.images, mean, scale, strict=True)])
        return Stack(images.astype(np.float32, copy=False), stack.labels), {"mean": mean, "deviation": deviation}

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        return values


@dataclass(frozen=True)
class Unit:
    """Take a range of intensities to 0 and 1."""

    low: float
    high: float

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        images = (stack.images - np.float32(self.low)) / np.float32(self.high - self.low)
        return Stack(images, stack.labels), asdict(self)

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        return values


@dataclass(frozen=True)
class CentreCrop:
    """Cut each slice to rows × columns about its centre; where it is smaller, pad with the volume's minimum.

    On the way back, what was cut away is background.
    """

    rows: int
    columns: int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        before = stack.images.shape[2:]
        after = (self.rows, self.columns)
        # where the old slice lies in the new one, and the other way round
        source = [max(0, (old - new) // 2) for old, new in zip(before, after, strict=True)]
        target = [max(0, (new - old) // 2) for old, new in zip(before, after, strict=True)]
        size = [min(old, new) for old, new in zip(before, after, strict=True)]
        images = np.empty((*stack.images.shape[:2], *after), np.float32)
        images[:] = stack.images.min(axis=(1, 2, 3))[:, None, None, None]
        inside: tuple[Any, ...] = (..., *_window(target, size))
        outside: tuple[Any, ...] = (..., *_window(source, size))
        images[inside] = stack.images[outside]
        labels = None
        if stack.labels is not None:
            labels = np.zeros((stack.labels.shape[0], *after), np.uint8)
            labels[inside] = stack.labels[outside]
        return Stack(images, labels), {"before": list(before), "source": source, "target": target, "size": size}

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        whole = np.full((values.shape[0], *record["before"]), outside, values.dtype)
        inside: tuple[Any, ...] = (..., *_window(record["target"], record["size"]))
        cut: tuple[Any, ...] = (..., *_window(record["source"], record["size"]))
        whole[cut] = values[inside]
        return whole


@dataclass(frozen=True)
class Resize:
    """Scale each slice to rows × columns: images and probabilities bilinear, labels nearest, pixel centres aligned."""

    rows: int
    columns: int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        before, size = list(stack.images.shape[2:]), (self.rows, self.columns)
        record = {"before": before, "after": list(size)}
        if before == list(size):
            return stack, record
        images = _bilinear(stack.images, size)
        labels = None if stack.labels is None else _nearest(stack.labels, size)
        return Stack(images, labels), record

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        if values.dtype.kind != "f":
            return _nearest(values, record["before"])
        return _bilinear(values[:, None], record["before"])[:, 0]


STEPS: dict[str, Any] = {
    "slicing": Slicing,
    "clip": Clip,
    "zscore": ZScore,
    "unit": Unit,
    "crop": CentreCrop,
    "resize": Resize,
}
NAMES = {step: name for name, step in STEPS.items()}


@dataclass(frozen=True)
class Preparation:
    """The steps of a data set, in order: slicing first, scaling to the network's size last."""

    steps: tuple[Any, ...]

    @classmethod
    def from_config(cls, config: DataConfig) -> Preparation:
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
        steps.append(Resize(*config.image_size))
        return cls(tuple(steps))

    def describe(self) -> list[Record]:
        """The steps and their settings, JSON-able: two preparations are the same if these are."""
        return [{"step": NAMES[type(step)], **asdict(step)} for step in self.steps]

    def apply(self, volume: Volume) -> Prepared:
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
        return Prepared(images, labels, record)

    def restore(self, labels: np.ndarray, record: Record) -> np.ndarray:
        """Take a label map (S, H, W) back to the original grid (X, Y, Z), step by step in reverse."""
        return restore(labels, record)


def restore(values: np.ndarray, record: Record, outside: float = 0) -> np.ndarray:
    """Take a label map, or a map of one class's probability, (S, H, W) back to the grid (X, Y, Z) of `record`.

    `record` is that of `Prepared`. Whole numbers are scaled by the nearest neighbour, others bilinearly. What a crop
    cut away becomes `outside`: 0, the background's label; for the background's probability, give 1.
    """
    for step in reversed(record["steps"]):
        values = STEPS[step["step"]].restore(values, step, outside)
    return np.ascontiguousarray(values)


def shown(volume: np.ndarray, record: Record) -> np.ndarray:
    """Turn an array (X, Y, Z) of the original grid into slices (S, rows, columns) as a network sees them, unscaled."""
    turn = record["steps"][0]
    return _turn(volume, turn["order"], turn["flips"])


def shown_spacing(record: Record) -> tuple[float, float] | None:
    """Millimetres of a pixel of `shown`, down and across; None where they are not known."""
    if record["spacing"] is None:
        return None
    _, down, across = (record["spacing"][axis] for axis in record["steps"][0]["order"])
    return down, across


def _own_plane(affine: np.ndarray, shape: tuple[int, ...]) -> str:
    """The anatomical plane nearest to the scanner's slices: voxels are thickest across it, else voxels are fewest."""
    thickness = np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist()
    across = max(range(3), key=lambda axis: (thickness[axis], -shape[axis], axis))
    return PLANE_ACROSS[nib.orientations.aff2axcodes(affine)[across]]


def _turn(array: np.ndarray, order: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    return np.flip(array.transpose(order), tuple(n for n, flip in enumerate(flips) if flip)).copy()


def _window(start: Sequence[int], size: Sequence[int]) -> tuple[Any, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def _nearest(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    if list(labels.shape[1:]) == list(size):
        return labels
    tensor = torch.from_numpy(labels.copy(order="C"))[:, None]
    return F.interpolate(tensor, size=tuple(size), mode="nearest-exact")[:, 0].numpy()


def _bilinear(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Images (S, C, H, W), or (C, S, H, W), of another height and width."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False).numpy()


def _pixel_spacing(volume: Volume, records: list[Record]) -> list[float] | None:
    """mm per pixel of the finished slices, rows and columns; an anisotropic resize gives two different ones."""
    if volume.spacing is None:
        return None
    spacing = [volume.spacing[axis] for axis in records[0]["order"][1:]]
    for record in records:
        if record["step"] == "resize":
            spacing = [mm * old / new for mm, old, new in zip(spacing, record["before"], record["after"], strict=True)]
    return spacing
