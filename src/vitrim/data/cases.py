"""The data types of a data set: case, set of cases, and volume."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitrim.config.names import VoxelSize
from vitrim.data.intensity_scale import PLAIN, Scale
from vitrim.errors import DataError

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""


@dataclass(frozen=True)
class Case:
    """One examination: the paths of its files, without their content."""

    id: str
    images: tuple[Path, ...]
    """One file per channel; for single slices (`.npz`), one file per slice, in order."""
    label: Path | None
    """None if the case has no reference, or if the reference is in the image file (npz, h5)."""
    patient: str = ""
    """A split keeps all cases of one patient together. By default the patient is the case id."""
    split: str | None = None
    """`train`, `validation` or `tuning`, if the data set defines its own split."""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.id)

    @property
    def labelled(self) -> bool:
        """Whether the case has a reference segmentation."""
        return self.label is not None or self.images[0].suffix in (".npz", ".h5")

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, images first."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class CaseSet:
    """The cases of one data set, and the meaning of their labels."""

    layout: str
    folder: Path
    cases: tuple[Case, ...]
    classes: dict[int, str]
    """Class to name. Class 0 is the background; the numbers have no gap."""
    label_values: dict[int, int]
    """Value in a label file to class. A value that is missing here is an error."""
    channels: tuple[str, ...] = ("image",)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Regions to evaluate: name to the classes of the region. By default each foreground class is one region."""
    problems: tuple[str, ...] = ()
    """Problems of cases that the reader left out, if it was not strict."""
    voxel_size: VoxelSize | None = None
    """Where the voxel size is read if a header contradicts itself (`DataConfig.voxel_size`)."""
    unused: tuple[str, ...] = ()
    """What the folder holds and the reader does not use, counted and named, one line each."""
    notes: tuple[str, ...] = ()
    """What else the user should know of how the data set is read, one line each."""
    colours: dict[Colour, int] = field(default_factory=dict)
    """Colour in a mask to class; empty if masks hold values."""

    def __post_init__(self) -> None:
        if not self.regions:
            own = {name: (index,) for index, name in self.classes.items() if index}
            object.__setattr__(self, "regions", own)

    @property
    def num_classes(self) -> int:
        """Number of classes, including the background."""
        return len(self.classes)

    @property
    def ids(self) -> tuple[str, ...]:
        """All case ids, in order."""
        return tuple(case.id for case in self.cases)

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases that have a reference segmentation."""
        return tuple(case for case in self.cases if case.labelled)

    def case(self, id: str) -> Case:
        """Return the case with this id. Raises DataError if there is none."""
        for case in self.cases:
            if case.id == id:
                return case
        raise DataError(f"no case {id!r} in {self.folder}")


@dataclass
class Volume:
    """The voxels of a case in memory, on the original grid."""

    image: np.ndarray
    """float32 (C, X, Y, Z)"""
    label: np.ndarray | None
    """uint8 (X, Y, Z), classes as in `CaseSet.classes`"""
    affine: np.ndarray
    """float64 (4, 4), voxel to mm in RAS+"""
    spacing: tuple[float, float, float] | None
    """Voxel size in mm along X, Y, Z; None if it is not known (npz, h5)"""
    doubt: str = ""
    """How the image's header contradicts itself about the voxel size; empty if it does not"""
    scale: Scale = PLAIN
    """How the image's header scales the stored numbers"""
    label_scale: Scale = PLAIN
    """The same of the label's header"""
    rounded: float = 0.0
    """Largest distance of a label value from the whole number that it was taken for"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along X, Y, Z."""
        x, y, z = self.image.shape[1:]
        return x, y, z
