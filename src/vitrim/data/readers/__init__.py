"""One file per layout: each turns a folder into cases, and does nothing else."""

from __future__ import annotations

from pathlib import Path

from vitrim.config import DataConfig
from vitrim.data.cases import CaseSet
from vitrim.data.readers import decathlon
from vitrim.data.volumes import load_volume
from vitrim.errors import InputError

__all__ = ["load_volume", "read_cases"]

READERS = {"decathlon": decathlon.read}


def read_cases(config: DataConfig, folder: Path, strict: bool = True) -> CaseSet:
    """Find the cases in `folder`, which has the layout `config.layout`. No voxel is read.

    Raises InputError if the folder is missing, is of another layout or holds no case; if `strict`, also at the first
    thing that is wrong with a case (an image without its label, say). Otherwise such cases are left out and what is
    wrong with them is listed in `CaseSet.problems`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such data folder: {folder}")
    case_set = READERS[config.layout](config, folder)
    if strict and case_set.problems:
        more = len(case_set.problems) - 1
        tail = f" (and {more} more: vitrim data check lists them all)" if more else ""
        raise InputError(case_set.problems[0] + tail)
    if not case_set.cases:
        raise InputError(f"no cases in {folder}: expected the layout {config.layout!r}")
    return case_set
