"""Synapse multi-organ CT (https://www.synapse.org/Synapse:syn3193805), in two forms.

The paper used the TransUNet release: `train_npz/case0005_slice000.npz`, `test_vol_h5/case0001.npy.h5` and the lists
`train.txt` and `test_vol.txt`. Its images are already clipped and scaled. The original files of the challenge are
`img0001.nii.gz` with `label0001.nii.gz` and 13 organs; the reader keeps the 8 organs of the paper.
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

ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
"""Organs in the order of the release's label values, from 1."""
CLASSES = {0: "background", **{n + 1: organ for n, organ in enumerate(ORGANS)}}
RAW_VALUES = {0: 0, 1: 7, 2: 4, 3: 3, 4: 2, 5: 0, 6: 5, 7: 8, 8: 1, 9: 0, 10: 0, 11: 6, 12: 0, 13: 0}
"""The challenge's 13 label values to class; esophagus, veins and adrenal glands become background."""
VALIDATION = frozenset({1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38})
"""Numbers of the release's 12 test cases (test_vol.txt). The paper uses them as validation cases."""

SLICE = re.compile(r"^(case\d+)_slice(\d+)$")
VOLUME = re.compile(r"^(case\d+)\.npy\.h5$")
RAW = re.compile(r"^(img|label)(\d{4})$")


def read(config: DataConfig, folder: Path) -> CaseSet:
    """Find the cases of either form; if both are there, the release is used.

    Raises DataError if the configuration names other classes, or if a list cannot be read.
    """
    if config.classes is not None and config.classes != list(ORGANS):
        raise DataError(f"Synapse has the classes {', '.join(ORGANS)}: leave data.classes out")
    found = list(files(folder))
    slices = {path.stem: path for path in found if path.suffix == ".npz" and SLICE.match(path.stem)}
    volumes = {match[1]: path for path in found if (match := VOLUME.match(path.name))}
    if slices or volumes:
        if config.normalize == "unit":
            raise DataError(
                f"the files of the TransUNet release in {folder} are clipped and scaled to 0 to 1 already: "
                f"set normalize: none and leave clip out"
            )
        return _release(folder, found, slices, volumes)
    return _raw(folder, found)


def is_release(folder: Path) -> bool:
    """Whether a folder holds files of the TransUNet release, whose images are clipped and scaled already."""
    found = files(folder)
    return any(VOLUME.match(path.name) or (path.suffix == ".npz" and SLICE.match(path.stem)) for path in found)


def _release(folder: Path, found: list[Path], slices: dict[str, Path], volumes: dict[str, Path]) -> CaseSet:
    """Return the cases of the TransUNet release. Its lists give the split; if they are missing, the file types do."""
    lists = {path.name: path for path in found if path.name in ("train.txt", "test_vol.txt")}
    problems: list[str] = []
    training = _names(lists["train.txt"]) if "train.txt" in lists else sorted(slices)
    held_out = _names(lists["test_vol.txt"]) if "test_vol.txt" in lists else sorted(volumes)
    stacks: dict[str, dict[int, Path]] = {}
    for name in training:
        match = SLICE.match(name)
        if match is None or name not in slices:
            problems.append(f"{lists['train.txt']} names {name}, but there is no {name}.npz")
        else:
            stacks.setdefault(match[1], {})[int(match[2])] = slices[name]
    cases = []
    for id, stack in sorted(stacks.items()):
        cases.append(Case(id, tuple(stack[number] for number in sorted(stack)), None, split="train"))
        missing = sorted(set(range(max(stack) + 1)) - set(stack))
        if missing:
            problems.append(f"case {id} lacks slice {missing[0]:03d}: {folder} holds {len(stack)} of {max(stack) + 1}")
    for id in held_out:
        if id not in volumes:
            problems.append(f"{lists['test_vol.txt']} names {id}, but there is no {id}.npy.h5")
        elif id in stacks:
            problems.append(f"case {id} is both a training and a test case: {volumes[id]}")
        else:
            cases.append(Case(id, (volumes[id],), None, split="validation"))
    identity = {n: n for n in CLASSES}
    return CaseSet("synapse", folder, tuple(cases), CLASSES, identity, ("CT",), problems=tuple(problems))


def _raw(folder: Path, found: list[Path]) -> CaseSet:
    """Return the cases of the challenge's own files.

    The split is the release's if all 12 of its test cases and at least one more have a label. Otherwise there is none.
    """
    parts: dict[str, dict[str, Path]] = {"img": {}, "label": {}}
    for path in volumes(found):
        match = RAW.match(stem(path))
        if match:
            parts[match[1]].setdefault(match[2], path)
    images, labels = parts["img"], parts["label"]
    listed = all(f"{number:04d}" in labels for number in VALIDATION) and len(labels) > len(VALIDATION)
    cases = []
    for number, path in sorted(images.items()):
        split = ("validation" if int(number) in VALIDATION else "train") if listed and number in labels else None
        cases.append(Case(f"case{number}", (path,), labels.get(number), split=split))
    problems = tuple(
        f"label without its image: {labels[number]} (expected img{number}.nii.gz)"
        for number in sorted(labels.keys() - images.keys())
    )
    return CaseSet("synapse", folder, tuple(cases), CLASSES, RAW_VALUES, ("CT",), problems=problems)


def _names(path: Path) -> list[str]:
    """Return the entries of a list file, without their file endings."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {path}: {error}") from error
    return [line.removesuffix(".npz").removesuffix(".npy.h5") for line in dict.fromkeys(lines)]


LAYOUT = Layout("synapse", read, CLASSES, PaperCounts(cases=(18, 12), slices=(2211, 1568)))
