"""What lies in a folder that nobody described: its layout, and what some of its cases hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from vitrim.config.names import LayoutName
from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.check import inspect_case
from vitrim.data.formats import read_voxels
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import LAYOUTS, MOST_CLASSES, read_cases
from vitrim.data.transforms import own_plane
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, InputError
from vitrim.metrics.segmentation import dice

T = TypeVar("T")

LEVELS = (0.5, 99.5)
"""Percentiles of the intensities in labelled voxels, as in nnU-Net."""


@dataclass(frozen=True)
class Found:
    """A data set in a folder: how it is read, and its cases."""

    config: DataConfig
    """Layout and, if the data set does not name its classes, names for them"""
    cases: CaseSet
    others: tuple[str, ...] = ()
    """Other layouts in which the folder could be read"""


@dataclass(frozen=True)
class Look:
    """What one case holds."""

    case: str
    shape: tuple[int, int, int]
    """Voxels along the axes of the array"""
    spacing: tuple[float, float, float] | None
    """Voxel size in mm along these axes; None if it is not known"""
    plane: str
    """Anatomical plane of the acquired slices"""
    lowest: float
    """Lowest intensity of the first channel"""
    levels: tuple[float, float] | None
    """`LEVELS` of the first channel in labelled voxels; None if there are none"""

    @property
    def elongation(self) -> float:
        """Longest side of a voxel over its second longest; 1 if the size is not known."""
        *_, second, longest = sorted(self.spacing or (1.0, 1.0, 1.0))
        return longest / second


@dataclass(frozen=True)
class Prepared:
    """What preprocessing makes of one case."""

    slices: int
    size: tuple[int, int]
    """Rows and columns of a slice before it is scaled"""
    ceiling: dict[int, dict[str, float]]
    """Image size to the highest Dice that it allows, per class"""
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def find_data(folder: Path, layout: LayoutName | None = None) -> Found:
    """Find the layout of a folder: of all layouts, or of `layout` alone, the one that has the most labelled cases.

    If the data set does not name its classes, they are called `class 1`, `class 2`, … by their label values. Raises
    DataError if the folder is missing, has no layout, or holds no labelled case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no such data folder: {folder}")
    found: list[Found] = []
    reasons: dict[str, list[str]] = {}
    for name in LAYOUTS if layout is None else (layout,):
        try:
            found.append(_read(DataConfig.model_validate({"layout": name}), folder))
        except InputError as error:
            reason = str(error).removeprefix(f"no cases in {folder}: ")
            reasons.setdefault("no cases" if reason.startswith("expected the layout") else reason, []).append(name)
    if not found:
        said = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise DataError(f"{folder} holds no data set in a layout that vitrim reads ({said})")
    best = max(found, key=lambda one: len(one.cases.labelled))
    if not best.cases.labelled:
        raise DataError(f"{folder} holds no labelled case: {next(iter(best.cases.problems), 'images alone')}")
    return replace(best, others=tuple(one.config.layout for one in found if one is not best and one.cases.labelled))


def _read(config: DataConfig, folder: Path) -> Found:
    """Read the cases of one layout. If that is refused only because the classes have no names, name them."""
    try:
        return Found(config, read_cases(config, folder, strict=False))
    except InputError as error:
        try:
            unnamed = config.model_copy(update={"classes": _numbered(MOST_CLASSES - 1)})
            cases = read_cases(unnamed, folder, strict=False)
        except InputError:
            raise error from None
    named = config.model_copy(update={"classes": _numbered(_largest_value(cases))})
    return Found(named, read_cases(named, folder, strict=False))


def _numbered(classes: int) -> list[str]:
    return [f"class {value}" for value in range(1, classes + 1)]


def _largest_value(cases: CaseSet) -> int:
    """Return the largest value in the label files. Raises DataError if they do not count classes from 1."""
    paths = [case.label for case in cases.labelled if case.label is not None]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        values = sorted(set().union(*pool.map(lambda path: np.unique(read_voxels(path).array).tolist(), paths)))
    largest = int(values[-1]) if values else 0
    if not 1 <= largest < MOST_CLASSES or len(values) <= largest / 2:
        raise DataError(
            f"the label files in {cases.folder} hold the values {', '.join(f'{value:g}' for value in values[:8])}"
            f"{', …' if len(values) > 8 else ''}: say what they mean in {cases.folder / 'dataset.json'}, for example "
            '{"labels": {"0": "background", "255": "lesion"}}'
        )
    return largest


def look_at(case: Case, cases: CaseSet) -> Look:
    """Read one case. Raises DataError as `load_volume` does."""
    volume = load_volume(case, cases)
    first = volume.image[0]
    inside = first[volume.label > 0] if volume.label is not None else first[:0]
    levels = np.percentile(inside, LEVELS).tolist() if inside.size else None
    return Look(
        case.id,
        volume.shape,
        volume.spacing,
        own_plane(volume.affine, volume.shape),
        float(first.min()),
        None if levels is None else (levels[0], levels[1]),
    )


def prepare(case: Case, cases: CaseSet, config: DataConfig, sizes: Sequence[int]) -> Prepared:
    """Preprocess one case, and measure what each of the image sizes costs. Problems are listed, not raised."""
    found = inspect_case(case, cases, Preprocessing.from_config(config))
    if found.volume is None or found.prepared is None:
        return Prepared(0, (0, 0), {}, tuple(found.errors), tuple(found.warnings))
    before = found.prepared.record["steps"][-1]["before"]
    ceiling = {
        size: _ceiling(found.volume, cases, config.model_copy(update={"image_size": (size, size)})) for size in sizes
    }
    return Prepared(
        len(found.prepared.images), (before[0], before[1]), ceiling, tuple(found.errors), tuple(found.warnings)
    )


def _ceiling(volume: Volume, cases: CaseSet, config: DataConfig) -> dict[str, float]:
    """Return the highest Dice per class that slicing, cropping and scaling allow (`CaseFindings.ceiling`)."""
    if volume.label is None:
        return {}
    plain = config.model_copy(update={"clip": None, "normalize": "none"})
    preprocessing = Preprocessing.from_config(plain)
    label = volume.label
    prepared = preprocessing.apply(replace(volume, image=label[None].astype(np.float32)))
    assert prepared.labels is not None
    back = preprocessing.restore(prepared.labels, prepared.record)
    return {name: dice(back == n, label == n) for n, name in cases.classes.items() if n and (label == n).any()}


def over_cases(work: Callable[[Case], T], cases: Sequence[Case], advance: Callable[[], None]) -> list[T]:
    """Do the same work for each case, on all cores, in order; call `advance` after each."""
    results = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for result in pool.map(work, cases):
            results.append(result)
            advance()
    return results
