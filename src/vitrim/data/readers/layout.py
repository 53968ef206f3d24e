"""The description of a data layout. Each reader module defines one as `LAYOUT`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.schema import DataConfig
from vitrim.data.cases import CaseSet


@dataclass(frozen=True)
class PaperCounts:
    """The numbers of cases and slices for training and for validation in the paper (3.4)."""

    cases: tuple[int, int]
    slices: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """A data layout: its reader and its fixed properties."""

    name: str
    read: Callable[[DataConfig, Path], CaseSet]
    """Finds the cases in a folder without reading voxels. Problems with single cases go into `CaseSet.problems`."""
    classes: dict[int, str] | None = None
    """Class to name, including the background; None if each data set has its own classes."""
    paper: PaperCounts | None = None
    """Counts in the paper; None if the paper did not use this data set."""
    absent_also_as_one: bool = False
    """Also print Dice with the other convention: 1 for a class that is absent from reference and prediction."""
    planar: bool = False
    """Whether each case is a picture: one slice of unknown size, so that distances are in pixels."""
