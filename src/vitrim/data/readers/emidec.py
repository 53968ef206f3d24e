"""EMIDEC, delayed-enhancement cardiac MRI (https://emidec.com): `Case_P001/Images` and `Case_P001/Contours`."""

from __future__ import annotations

import re
from pathlib import Path

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.formats import stem, volumes
from vitrim.data.readers.find_files import files
from vitrim.data.readers.layout import Layout, PaperCounts
from vitrim.errors import DataError

CLASSES = {0: "background", 1: "myocardium", 2: "infarction", 3: "no-reflow"}
LABEL_VALUES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 3}
"""Value in a label file to class. Value 1 is the cavity, which the paper counts as background (3.4)."""
NESTED = {"myocardium": (1, 2, 3), "infarction": (2, 3), "no-reflow": (3,)}
"""The regions of the challenge: label values 2+3+4, 3+4 and 4."""
NAME = re.compile(r"^Case_[NP]?\d+$")


def read(config: DataConfig, folder: Path) -> CaseSet:
    """Find the cases of EMIDEC. Cases without contours (the challenge's test set) are included as unlabelled.

    Raises DataError if the configuration names other classes.
    """
    if config.classes is not None and config.classes != list(CLASSES.values())[1:]:
        raise DataError(f"EMIDEC has the classes {', '.join(list(CLASSES.values())[1:])}: leave data.classes out")
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for path in volumes(files(folder)):
        if NAME.match(stem(path)):
            if path.parent.name == "Images":
                images.setdefault(stem(path), path)
            elif path.parent.name == "Contours":
                labels.setdefault(stem(path), path)
    cases = tuple(Case(id, (path,), labels.get(id)) for id, path in sorted(images.items()))
    orphans = sorted(labels.keys() - images.keys())
    problems = tuple(f"label without its image: {labels[id]} (expected Images/{id}.nii.gz)" for id in orphans)
    regions = NESTED if config.nested else {}
    return CaseSet("emidec", folder, cases, CLASSES, LABEL_VALUES, ("LGE",), regions=regions, problems=problems)


LAYOUT = Layout("emidec", read, CLASSES, PaperCounts(cases=(80, 20), slices=(558, 180)), absent_also_as_one=True)
