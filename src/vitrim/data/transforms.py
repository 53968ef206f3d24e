"""The preprocessing steps from a volume to slices. Each step can be inverted.

`apply` processes a stack and returns the new stack and a record of what it did (JSON values). `restore` inverts the
step for labels, or for the probabilities of one class, (S, H, W), with that record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np

from vitrim.data.resampling import bilinear, corner_bilinear, nearest, zoomed_images, zoomed_labels

SLICE_AXES = {"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"}
"""Directions in which slice number, row and column increase. This is the radiological display: the patient's left is
on the right of the image, and rows run from anterior to posterior or from superior to inferior."""

PLANE_ACROSS = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal", "R": "sagittal", "L": "sagittal"}
"""Anatomical plane of the slices that follow one another along each direction."""

Record = dict[str, Any]
Resampling = Callable[[np.ndarray, Sequence[int]], np.ndarray]


@dataclass
class Stack:
    """A volume between two preprocessing steps."""

    images: np.ndarray
    """float32 (C, S, H, W)"""
    labels: np.ndarray | None
    """uint8 (S, H, W)"""


@dataclass(frozen=True)
class Slicing:
    """Reorder the axes of the volume so that the first axis counts slices.

    For an anatomical `axis`, the affine gives the orientation, and slices appear in radiological display.
    `through-plane` is the anatomical plane nearest to the acquired slices, across the longest side of the voxels. For
    an array axis (0, 1, 2) the orientation stays: the two other axes, in order, are rows and columns.
    """

    axis: str | int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        if isinstance(self.axis, int):
            order, flips = [self.axis, *(n for n in range(3) if n != self.axis)], [False] * 3
        else:
            plane = self.axis if self.axis in SLICE_AXES else own_plane(affine, stack.images.shape[1:])
            towards = nib.orientations.axcodes2ornt(SLICE_AXES[plane])
            turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), towards)
            order = np.argsort(turn[:, 0]).astype(int).tolist()
            flips = [bool(turn[n, 1] < 0) for n in order]
        record = {"order": order, "flips": flips}
        images = np.stack([turned(channel, order, flips) for channel in stack.images])
        labels = None if stack.labels is None else turned(stack.labels, order, flips)
        return Stack(images, labels), record

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        flipped = tuple(n for n, flip in enumerate(record["flips"]) if flip)
        return np.flip(values, flipped).transpose(np.argsort(record["order"]))


@dataclass(frozen=True)
class Clip:
    """Clip intensities to a range; for CT, in Hounsfield units."""

    low: float
    high: float

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        return Stack(stack.images.clip(self.low, self.high), stack.labels), asdict(self)

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        return values


@dataclass(frozen=True)
class ZScore:
    """Normalise each channel of a volume to zero mean and unit deviation (paper, 3.5); a constant channel becomes 0."""

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
    """Map the intensities `low` and `high` linearly to 0 and 1."""

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
    """Crop each slice to rows × columns about its centre; where it is smaller, pad with the channel's minimum.

    Padded labels are background. `restore` fills the cropped region with `outside`.
    """

    rows: int
    columns: int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        before = stack.images.shape[2:]
        after = (self.rows, self.columns)
        # first pixel of the common window: `source` in the old slice, `target` in the new one
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


def _resampled(stack: Stack, size: tuple[int, int], images: Resampling, labels: Resampling) -> tuple[Stack, Record]:
    """Bring each slice to `size`, its images and its labels each by their own function."""
    before = list(stack.images.shape[2:])
    record = {"before": before, "after": list(size)}
    if before == list(size):
        return stack, record
    return Stack(images(stack.images, size), None if stack.labels is None else labels(stack.labels, size)), record


@dataclass(frozen=True)
class Resize:
    """Scale each slice to rows × columns, pixel centres aligned: images and probabilities bilinear, labels nearest."""

    rows: int
    columns: int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        return _resampled(stack, (self.rows, self.columns), bilinear, nearest)

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        if values.dtype.kind != "f":
            return nearest(values, record["before"])
        return bilinear(values[:, None], record["before"])[:, 0]


@dataclass(frozen=True)
class Zoom:
    """Scale each slice to rows × columns as the public TransUNet code does: `scipy.ndimage.zoom`, corners aligned.

    Images use cubic splines (order 3), labels the nearest neighbour (order 0), probabilities are bilinear. For some
    pairs of sizes, for example 512 to 224, scipy sets the last row or column to 0; this step does the same.
    """

    rows: int
    columns: int

    def apply(self, stack: Stack, affine: np.ndarray) -> tuple[Stack, Record]:
        return _resampled(stack, (self.rows, self.columns), zoomed_images, zoomed_labels)

    @staticmethod
    def restore(values: np.ndarray, record: Record, outside: float) -> np.ndarray:
        if values.dtype.kind != "f":
            return zoomed_labels(values, record["before"])
        return corner_bilinear(values, record["before"])


STEPS: dict[str, Any] = {
    "slicing": Slicing,
    "clip": Clip,
    "zscore": ZScore,
    "unit": Unit,
    "crop": CentreCrop,
    "resize": Resize,
    "zoom": Zoom,
}
NAMES = {step: name for name, step in STEPS.items()}


def own_plane(affine: np.ndarray, shape: tuple[int, ...]) -> str:
    """Return the anatomical plane nearest to the acquired slices.

    Voxels are longest across this plane; if sides are equal, the axis with the fewest voxels decides.
    """
    thickness = np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist()
    across = max(range(3), key=lambda axis: (thickness[axis], -shape[axis], axis))
    return PLANE_ACROSS[nib.orientations.aff2axcodes(affine)[across]]


def turned(array: np.ndarray, order: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """Return a copy of `array` with its axes in `order`, then reversed where `flips` is true."""
    return np.flip(array.transpose(order), tuple(n for n, flip in enumerate(flips) if flip)).copy()


def _window(start: Sequence[int], size: Sequence[int]) -> tuple[Any, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
