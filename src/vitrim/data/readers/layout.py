"""What vitrim knows about one data layout: a record that stands at the end of the layout's reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.schema import DataConfig
from vitrim.data.cases import CaseSet


@dataclass(frozen=True)
class PaperCounts:
    """Cases and slices for training and validation, as the paper has them (3.4)."""

    cases: tuple[int, int]
    slices: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """A data layout: how its cases are found, and what is fixed about it."""

    name: str
    read: Callable[[DataConfig, Path], CaseSet]
    """Finds the cases in a folder. It reads no voxel. What is wrong with single cases goes into `CaseSet.problems`."""
    classes: dict[int, str] | None = None
    """Class to name, the background among them; None where each data set has its own classes."""
    paper: PaperCounts | None = None
    """None if the paper did not use this data set."""
    absent_also_as_one: bool = False
    """Print Dice also by the other convention for a class that is absent from reference and prediction: 1."""
