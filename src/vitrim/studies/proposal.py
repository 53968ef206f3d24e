"""A study that fits a data set and this machine, with the reason of every choice, as commented YAML."""

from __future__ import annotations

import os
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from vitrim.config.reading import load_study, presets
from vitrim.config.schema import DataConfig, StudyConfig
from vitrim.data.cases import CaseSet
from vitrim.data.split import Split, study_splits
from vitrim.data.survey import Found, Look, Prepared
from vitrim.errors import printable
from vitrim.hardware import gpu_memory
from vitrim.metrics.statistics import VERDICT_CASES

ELONGATED = 1.3
"""Voxels this much longer along one axis come from slices that were acquired one by one."""

AIR = -900.0
"""An image whose lowest intensity is below this is CT, in Hounsfield units."""

ENOUGH = 0.9
"""An image size is large enough if scaling to it and back leaves every class this Dice."""

GPU_SIZES, CPU_SIZES = (224, 320, 448), (128, 192, 256)
"""Image sizes to choose from; the smallest that is large enough is taken."""

FEWEST, MOST = 2_000, 20_000
"""Steps of a training on a GPU: the paper's 80 epochs, within these limits."""

CPU_STEPS = 600
"""Steps of a training on a CPU: those of examples/hippocampus.yaml."""

EPOCHS, BATCH = 80, 8
"""Epochs and slices per step of the paper (3.6)."""

FOLDS = 5
"""Number of folds that few cases are advised to use."""

SMALL_GPU = 12.0
"""Memory in GiB below which a GPU gets half of the paper's batch."""

SAMPLE = "(.+)_[^_]+"
"""Finds the patient in ids such as patient001_frame01."""

MOST_PER_PATIENT = 20
"""If ids share a beginning, but more ids than this do, the beginning names no patient."""


@dataclass(frozen=True)
class Choice:
    """A key of the study with its value, and why it has it."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Proposal:
    """A study, as choices in the order of its file."""

    name: str
    choices: tuple[Choice, ...]
    facts: tuple[str, ...]
    """What the data set holds, one line each"""

    def text(self, command: str) -> str:
        """Return the study as commented YAML; `command` runs it."""
        head = ["Written by `vitrim study new`: read it, change it, then run", "", f"  {command}", "", *self.facts]
        lines = [f"# {_one_line(line)}" for line in [*head, "docs/configuration.md lists all keys."]]
        lines.append(f"name: {in_yaml(self.name)}")
        section = ""
        for choice in self.choices:
            *above, key = choice.key.split(".")
            if above and above[0] != section:
                lines.append(f"{above[0]}:")
            section = above[0] if above else ""
            indent = "  " * len(above)
            start = f"{indent}# "
            lines += textwrap.wrap(_one_line(choice.why), 100, initial_indent=start, subsequent_indent=start)
            lines.append(f"{indent}{key}: {in_yaml(choice.value)}")
        return "\n".join(line.rstrip() for line in lines) + "\n"


def _one_line(text: str) -> str:
    """Return text for a comment. What comes from a file must not end the comment."""
    return printable(re.sub(r"[\n\r\x0b\x0c\x85\u2028\u2029]", " ", text))


def in_yaml(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10_000, allow_unicode=True).strip()[1:-1]


def data_choices(found: Found, looks: Sequence[Look]) -> list[Choice]:
    """Return how the files become slices, as far as it follows from what some cases hold."""
    layout = found.config.layout
    also = f"; the folder can also be read as {', '.join(found.others)} (--layout)" if found.others else ""
    choices = [Choice("data.layout", layout, f"how the files lie{also}")]
    if layout in presets():
        paper = load_study(layout).data
        own = {"axis": paper.axis, "crop": paper.crop, "clip": paper.clip}
        choices += [Choice(f"data.{key}", value, "as in the paper") for key, value in own.items() if value is not None]
    else:
        window = _window(found, looks) if len(found.cases.channels) == 1 else None
        choices += [_axis(looks), *([] if window is None else [window])]
    if found.config.classes is not None:
        why = "the data set does not name its classes: give the label values 1, 2, … their names here"
        choices.append(Choice("data.classes", found.config.classes, why))
    if (patient := _patient([case.id for case in found.cases.labelled])) is not None:
        choices.append(patient)
    return choices


def data_section(choices: Sequence[Choice]) -> DataConfig:
    """Return the data section of these choices."""
    own = {choice.key.removeprefix("data."): choice.value for choice in choices if choice.key.startswith("data.")}
    return DataConfig.model_validate(own)


def _axis(looks: Sequence[Look]) -> Choice:
    known = [look for look in looks if look.spacing is not None]
    if not known:
        return Choice("data.axis", "axial", "the voxel size is not known; slices are taken as they are stored")
    long = [look for look in known if look.elongation >= ELONGATED]
    if 2 * len(long) < len(known):
        return Choice("data.axis", "axial", "voxels are about as long along all axes, so any plane would do")
    planes = Counter(look.plane for look in long)
    apart = float(np.median([max(look.spacing or (0,)) for look in long]))
    if len(planes) == 1:
        return Choice(
            "data.axis", next(iter(planes)), f"the acquired slices: voxels are longest across them ({apart:.3g} mm)"
        )
    said = ", ".join(f"{plane} in {count}" for plane, count in planes.most_common())
    return Choice("data.axis", "through-plane", f"the acquired slices, whose plane differs between cases: {said}")


def _window(found: Found, looks: Sequence[Look]) -> Choice | None:
    """Return the intensity range of a CT; None for other images."""
    named = found.cases.channels[0].strip().upper() == "CT"
    levels = [look.levels for look in looks if look.levels is not None]
    if not levels or not (named or np.median([look.lowest for look in looks]) <= AIR):
        return None
    low, high = np.median(levels, axis=0)
    low, high = 5 * int(np.floor(low / 5)), 5 * int(np.ceil(high / 5))
    if low >= high:
        return None
    sign = "the data set says CT" if named else f"intensities go below {AIR:.0f}, as in CT"
    return Choice("data.clip", [low, high], f"{sign}; from the 0.5th to the 99.5th percentile of the labelled voxels")


def _patient(ids: Sequence[str]) -> Choice | None:
    """Return the expression for the patient if ids look like several images of each patient; None if not."""
    matches = [re.fullmatch(SAMPLE, id) for id in ids]
    groups = Counter(match[1] for match in matches if match)
    if not all(matches) or not VERDICT_CASES <= len(groups) < len(ids) or max(groups.values()) > MOST_PER_PATIENT:
        return None
    first = next(name for name, count in groups.items() if count > 1)
    same = [id for id in ids if id.startswith(f"{first}_")][:2]
    why = f"{' and '.join(same)} look like one patient: such cases stay together in the split. If not, remove this key"
    return Choice("data.patient", SAMPLE, why)


def propose(
    name: str, cases: CaseSet, looks: Sequence[Look], prepared: Sequence[Prepared], chosen: Sequence[Choice]
) -> Proposal:
    """Return the whole study. `chosen` says how the data become slices; `cases` were read with it.

    Raises DataError if the cases are too few to be divided.
    """
    memory = gpu_memory()
    draft = {"name": name, "data": data_section(chosen), "networks": {"transunet": {}}, "training": {"steps": 1}}
    split = study_splits(cases, StudyConfig.model_validate(draft))[0]
    slices = round(float(np.mean([one.slices for one in prepared])) * len(split.train))
    choices = [
        *chosen,
        _image_size(prepared, GPU_SIZES if memory else CPU_SIZES),
        *_split(split, own=all(case.split for case in cases.labelled)),
        *(_on_gpu(memory, slices) if memory else _on_cpu(slices)),
        Choice("attention.cases", 40, "at most so many cases show where blocks attend"),
        Choice("attention.slices", 8, "and so many slices of each"),
    ]
    return Proposal(name, tuple(choices), tuple(_facts(cases, looks, prepared)))


def _image_size(prepared: Sequence[Prepared], sizes: Sequence[int]) -> Choice:
    limits = {size: _worst([one.ceiling[size] for one in prepared]) for size in sizes}
    size = next((size for size in sizes if limits[size][1] >= ENOUGH), sizes[-1])
    rows, columns = np.median([one.size for one in prepared], axis=0)
    name, limit = limits[size]
    smaller = [f"at {other} to {limits[other][1]:.3f}" for other in sizes if other < size]
    why = f"slices of {rows:.0f} × {columns:.0f} pixels are scaled to this, which limits the Dice of {name} to"
    return Choice("data.image_size", size, ", ".join([f"{why} {limit:.3f}", *smaller]))


def _worst(ceilings: Sequence[dict[str, float]]) -> tuple[str, float]:
    """Return the class with the lowest mean over cases, and this mean."""
    names = dict.fromkeys(name for one in ceilings for name in one)
    means = {name: float(np.mean([one[name] for one in ceilings if name in one])) for name in names}
    return min(means.items(), key=lambda item: item[1], default=("every class", 1.0))


def _split(split: Split, own: bool) -> list[Choice]:
    held_out, apart = len(split.validation), len(split.tuning)
    validation = f"cases that are held out; {len(split.train)} are left to train"
    if held_out < VERDICT_CASES and len(split.ids) >= FOLDS:
        validation += f"; to hold every case out once, add the option --folds {FOLDS}"
    tuning = "cases that choose the depth"
    if apart < VERDICT_CASES:
        tuning += f"; with fewer than {VERDICT_CASES} it is proposed by attention, but not chosen by accuracy"
    choices = [Choice("data.validation", held_out, validation), Choice("data.tuning", apart, tuning)]
    return choices[1:] if own else choices


def _on_gpu(memory: float, slices: int) -> list[Choice]:
    batch = min(BATCH if memory >= SMALL_GPU else BATCH // 2, slices)
    steps = min(max(EPOCHS * (slices // batch), FEWEST), MOST)
    download = "random weights; true loads those of ImageNet, as in the paper, which is better on few cases"
    return [
        Choice("networks.transunet", {"depths": [3, 1]}, "the paper's networks; its depths beside the decided one"),
        Choice("networks.cats2d", {"depths": [3]}, ""),
        Choice("networks.unetr2d", {"depths": [3]}, ""),
        Choice("size", "base", f"the paper's ViT-B, because this machine has a GPU (with {memory:.0f} GiB)"),
        Choice("pretrained", False, f"{download} (docs/pretrained.md)"),
        Choice("training.batch_size", batch, "slices per step; too little memory ends with a number that fits"),
        _steps(steps, batch, slices),
        Choice("training.learning_rate", 1e-4, "the paper's"),
    ]


def _on_cpu(slices: int) -> list[Choice]:
    batch = min(BATCH, slices)
    cores = f"this machine has no GPU, and {os.cpu_count()} cores: a small network that trains in minutes"
    return [
        Choice(
            "networks.transunet", {}, "for a first look; cats2d: {backbone: resnet10t} and unetr2d: {} are the others"
        ),
        Choice("size", "micro", f"{cores}; the paper has size: base, width: 1 and 224 pixels"),
        Choice("width", 0.25, ""),
        Choice("training.batch_size", batch, "slices per step"),
        _steps(CPU_STEPS, batch, slices),
        Choice("training.learning_rate", 2e-3, "for a small network; the paper's is 1e-4"),
        Choice("training.schedule", "cosine", ""),
    ]


def _steps(steps: int, batch: int, slices: int) -> Choice:
    return Choice("training.steps", steps, f"{steps * batch / slices:.1f} passes over about {slices} training slices")


def _facts(cases: CaseSet, looks: Sequence[Look], prepared: Sequence[Prepared]) -> list[str]:
    classes = ", ".join(f"{value} {name}" for value, name in cases.classes.items() if value)
    spacings = {tuple(round(mm, 3) for mm in look.spacing) for look in looks if look.spacing}
    shown = sorted(" × ".join(f"{mm:g}" for mm in sorted(one)) for one in spacings)
    size = "not known" if not shown else f"{shown[0]} mm" + (f" to {shown[-1]} mm" if len(shown) > 1 else "")
    return [
        f"{cases.folder.resolve().name}: {len(cases.labelled)} labelled cases, {len(looks)} of them looked at",
        f"channels: {', '.join(cases.channels)}",
        f"classes: {classes}",
        f"voxels: {size}",
        f"slices per case: {min(one.slices for one in prepared)} to {max(one.slices for one in prepared)}",
    ]
