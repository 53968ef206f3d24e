"""IBSR 18, T1-weighted brains with CSF, grey and white matter (https://www.nitrc.org/projects/ibsr).

The reader accepts the NITRC release (NIfTI or Analyze; `IBSR_01/IBSR_01_ana_strip.nii.gz` with
`IBSR_01_segTRI_ana.nii.gz`) and the release for courses (`Training_Set/IBSR_01/IBSR_01.nii.gz` with
`IBSR_01_seg.nii.gz`).
"""

from __future__ import annotations

import re
from pathlib import Path

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.formats import stem, volumes
from vitrim.data.readers.find_files import files
from vitrim.data.readers.layout import Layout, PaperCounts
from vitrim.errors import DataError

CLASSES = {0: "background", 1: "CSF", 2: "gray matter", 3: "white matter"}
IMAGES = ("_ana_strip", "_ana", "")
"""Endings of the image name after the case name; the first one that exists is used."""
LABELS = ("_segTRI_ana", "_segTRI_fill_ana", "_seg")
"""Endings of the label name after the case name; the first one that exists is used."""
NAME = re.compile(r"^(IBSR_\d+)(.*)$")


def read(config: DataConfig, folder: Path) -> CaseSet:
    """Find the cases of IBSR 18. Cases without a reference (3 in the course release) are included as unlabelled.

    Raises DataError if the configuration names other classes.
    """
    if config.classes is not None and config.classes != list(CLASSES.values())[1:]:
        raise DataError(f"IBSR 18 has the classes {', '.join(list(CLASSES.values())[1:])}: leave data.classes out")
    found: dict[str, dict[str, Path]] = {}
    for path in volumes(files(folder)):
        match = NAME.match(stem(path))
        if match:
            found.setdefault(match[1], {}).setdefault(match[2], path)
    cases, problems = [], []
    for id, parts in sorted(found.items()):
        image = next((parts[end] for end in IMAGES if end in parts), None)
        label = next((parts[end] for end in LABELS if end in parts), None)
        if image is not None:
            cases.append(Case(id, (image,), label))
        elif label is not None:
            problems.append(f"label without its image: {label} (expected {id}_ana_strip.nii.gz)")
    return CaseSet("ibsr18", folder, tuple(cases), CLASSES, {n: n for n in CLASSES}, ("T1",), problems=tuple(problems))


LAYOUT = Layout("ibsr18", read, CLASSES, PaperCounts(cases=(10, 5), slices=(1280, 640)))
