"""What a data set is to the rest of the program: cases, and the volumes in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitrim.errors import DataError


@dataclass(frozen=True)
class Case:
    """One examination: its files, not their content."""

    id: str
    images: tuple[Path, ...]
    """One file per channel; for slices stored singly (`.npz`), one file per slice in order."""
    label: Path | None
    """None where the data set has no reference for this case, or where it lies in the image's own file (npz, h5)."""
    patient: str = ""
    """Cases of one patient never come apart in a split; the id where nothing else is known."""
    split: str | None = None
    """`train` or `validation`, where the data set itself says so."""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.id)

    @property
    def labelled(self) -> bool:
        """Whether there is a reference segmentation."""
        return self.label is not None or self.images[0].suffix in (".npz", ".h5")

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, images first."""
        return self.images if self.label is None else (*self.images, self.label)


@dataclass(frozen=True)
class CaseSet:
    """The cases of one data set, and what their labels mean."""

    layout: str
    folder: Path
    cases: tuple[Case, ...]
    classes: dict[int, str]
    """Class to name; 0 is the background, and no number is left out."""
    label_values: dict[int, int]
    """Value in a label file to class. Any other value is an error."""
    channels: tuple[str, ...] = ("image",)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """What is evaluated: name to the classes that make it up (by default each foreground class by itself)."""
    problems: tuple[str, ...] = ()
    """What the reader found wrong and left out, when it was asked to go on."""

    def __post_init__(self) -> None:
        if not self.regions:
            own = {name: (index,) for index, name in self.classes.items() if index}
            object.__setattr__(self, "regions", own)

    @property
    def num_classes(self) -> int:
        """Classes, the background among them."""
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
        """The case of that id; InputError if there is none."""
        for case in self.cases:
            if case.id == id:
                return case
        raise DataError(f"no case {id!r} in {self.folder}")


@dataclass
class Volume:
    """A case in memory, on its original grid."""

    image: np.ndarray
    """float32 (C, X, Y, Z)"""
    label: np.ndarray | None
    """uint8 (X, Y, Z), classes as in `CaseSet.classes`"""
    affine: np.ndarray
    """float64 (4, 4), voxel to mm in RAS+"""
    spacing: tuple[float, float, float] | None
    """Voxel size in mm along X, Y, Z; None where it is not known (npz, h5)"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        x, y, z = self.image.shape[1:]
        return x, y, z
