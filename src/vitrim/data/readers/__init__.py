"""Readers of data layouts: each module finds the cases in a folder of one layout and defines its `LAYOUT`."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import get_args

from vitrim.config.names import LayoutName
from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.dicom import is_dicom
from vitrim.data.formats import ENDINGS, members
from vitrim.data.readers.find_files import files, some
from vitrim.data.readers.layout import Layout
from vitrim.errors import DataError

VOLUMES = (*ENDINGS, ".npz", ".h5")
"""Endings of files that may hold volumes or slices."""

LAYOUTS: dict[str, Layout] = {
    name: import_module(f"vitrim.data.readers.{name}").LAYOUT for name in get_args(LayoutName)
}
"""Layout name to the `LAYOUT` of the module with that name."""


def read_cases(config: DataConfig, folder: Path, strict: bool = True) -> CaseSet:
    """Find the cases in `folder`, which has the layout `config.layout`. No voxels are read.

    Raises DataError if the folder is missing, has another layout or holds no case. If `strict`, also raises DataError
    for the first problem with a case, for example an image without its label. Otherwise such cases are left out, and
    their problems are listed in `CaseSet.problems`. Two cases with the same id, or with a file in common, are always an
    error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"no such data folder: {folder}")
    case_set = LAYOUTS[config.layout].read(config, folder)
    if strict and case_set.problems:
        more = len(case_set.problems) - 1
        tail = f" (and {more} more: vitrim data check lists them all)" if more else ""
        raise DataError(case_set.problems[0] + tail)
    if not case_set.cases and not case_set.problems:
        raise DataError(f"no cases in {folder}: expected the layout {config.layout!r}")
    case_set = replace(case_set, voxel_size=config.voxel_size)
    if config.layout not in ("decathlon", "pictures") and not case_set.problems:  # they say it, and so do problems
        case_set = replace(case_set, unused=_unused(case_set, folder))
    _check_classes(case_set)
    _check_unique(case_set)
    if config.patient is None:
        return case_set
    return replace(case_set, cases=tuple(replace(c, patient=_patient(config.patient, c.id)) for c in case_set.cases))


def _unused(case_set: CaseSet, folder: Path) -> tuple[str, ...]:
    """Say which files that may hold volumes or slices no case uses. The reader of a layout may know more of them."""
    used = {file for case in case_set.cases for path in case.files for file in members(path)}
    found = [path for path in files(folder) if path.name.lower().endswith(VOLUMES) or is_dicom(path)]
    left = [path for path in found if path not in used]
    names = some([str(path.relative_to(folder)) for path in left])
    return (f"{len(left)} files in {folder} are not used: {names}",) if left else ()


MOST_CLASSES, LARGEST_VALUE = 255, 65535
"""Classes with the background, which are stored as 8-bit integers; and the largest value of a label file."""


def _check_classes(case_set: CaseSet) -> None:
    """Raise DataError if there are too many classes, or if a label value is so large that it cannot be meant."""
    if case_set.num_classes > MOST_CLASSES:
        raise DataError(
            f"{case_set.folder} names {case_set.num_classes} classes with the background; vitrim takes {MOST_CLASSES}"
        )
    largest = max(case_set.label_values)
    if largest > LARGEST_VALUE:
        raise DataError(
            f"{case_set.folder}: the label value {largest} is larger than {LARGEST_VALUE}; renumber the classes from 0"
        )


def _check_unique(case_set: CaseSet) -> None:
    """Raise DataError if two cases have the same id, or a file in common."""
    ids: dict[str, Case] = {}
    owners: dict[Path, Case] = {}
    for case in case_set.cases:
        other = ids.setdefault(case.id, case)
        if other is not case:
            raise DataError(f"{other.images[0]} and {case.images[0]} would both be case {case.id}: rename one of them")
        for path in case.files:
            other = owners.setdefault(path, case)
            if other is not case:
                raise DataError(f"{path} belongs to two cases, {other.id} and {case.id}: keep one of them")


def _patient(expression: str, id: str) -> str:
    """Return the first group of `expression` in a case id. Raises DataError if it does not match."""
    match = re.search(expression, id)
    if match is None or match[1] is None:
        raise DataError(f"data.patient {expression!r} does not match the case {id!r}")
    return match[1]
