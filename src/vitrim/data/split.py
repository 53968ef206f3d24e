"""Which cases are for training and which are held out: by patient, drawn from a seed or given."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from vitrim.config import DataConfig
from vitrim.data.cases import CaseSet
from vitrim.errors import InputError
from vitrim.files import write_json

PAPER = {
    "ibsr18": {"cases": (10, 5), "slices": (1280, 640)},
    "emidec": {"cases": (80, 20), "slices": (558, 180)},
    "synapse": {"cases": (18, 12), "slices": (2211, 1568)},
}
"""Training and validation, as the paper has them (3.4)."""


@dataclass(frozen=True)
class Split:
    """Case ids, in order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path, fold: int = 0) -> Split:
        """Read JSON with the lists `train` and `validation`, or nnU-Net's list of folds with `train` and `val`.

        InputError if the file holds anything else, or no such fold.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the split {path}: {error}") from error
        if isinstance(content, list):
            if not 0 <= fold < len(content):
                raise InputError(f"{path} has {len(content)} folds, counted from 0: there is no fold {fold}")
            content = content[fold]
        if isinstance(content, dict):
            train, validation = content.get("train"), content.get("validation", content.get("val"))
            if _are_ids(train) and _are_ids(validation):
                return cls(tuple(train), tuple(validation))
        raise InputError(f"{path} is not a split: expected JSON with the lists `train` and `validation` of case ids")


def split_cases(case_set: CaseSet, config: DataConfig, seed: int) -> Split:
    """Divide the labelled cases of `case_set` into training and validation.

    In this order: the split file of the configuration; its folds; what the data set itself says; a draw from `seed`.
    Cases of one patient stay together. Raises InputError if there are too few cases, or if a given split names a case
    twice, one that does not exist or has no label, or one patient on both sides.
    """
    if config.split_file is not None:
        split = Split.load(config.split_file, config.fold)
        _check(split, case_set, str(config.split_file))
        return split
    if config.folds is not None:
        return _fold(case_set, config.folds, config.fold, seed)
    cases = case_set.labelled
    if cases and all(case.split for case in cases):
        split = Split(
            tuple(case.id for case in cases if case.split == "train"),
            tuple(case.id for case in cases if case.split == "validation"),
        )
        _check(split, case_set, str(case_set.folder))
        return split
    return _draw(case_set, config, seed)


def _are_ids(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(id, str) for id in value)


def _fold(case_set: CaseSet, folds: int, fold: int, seed: int) -> Split:
    groups = _patients(case_set)
    if len(groups) < folds:
        raise InputError(f"too few cases in {case_set.folder}: {len(groups)} patients with labels for {folds} folds")
    order = np.random.default_rng(seed).permutation(len(groups))
    held_out = {int(n) for n in np.array_split(order, folds)[fold]}
    train = sorted(id for n, ids in enumerate(groups) if n not in held_out for id in ids)
    validation = sorted(id for n, ids in enumerate(groups) if n in held_out for id in ids)
    return Split(tuple(train), tuple(validation))


def _draw(case_set: CaseSet, config: DataConfig, seed: int) -> Split:
    groups = _patients(case_set)
    total = sum(len(ids) for ids in groups)
    wanted = config.validation
    held_out = wanted if isinstance(wanted, int) else max(1, round(wanted * total))
    order = [groups[n] for n in np.random.default_rng(seed).permutation(len(groups))]
    validation = _take(order, held_out)
    train = _take(order, total if config.train is None else config.train)
    if len(validation) < held_out or not train or (config.train is not None and len(train) < config.train):
        raise InputError(
            f"too few cases in {case_set.folder}: {total} with labels, asked for {held_out} to validate and"
            f" {config.train or 'at least 1'} to train"
        )
    return Split(tuple(sorted(train)), tuple(sorted(validation)))


def _take(groups: list[tuple[str, ...]], count: int) -> list[str]:
    """Move whole patients out of `groups` until `count` cases are together."""
    taken: list[str] = []
    while groups and len(taken) < count:
        taken.extend(groups.pop(0))
    return taken


def _patients(case_set: CaseSet) -> list[tuple[str, ...]]:
    """The ids of labelled cases, those of one patient together, in the order of the patients' names."""
    patients: dict[str, list[str]] = {}
    for case in case_set.labelled:
        patients.setdefault(case.patient, []).append(case.id)
    return [tuple(ids) for _, ids in sorted(patients.items())]


def _check(split: Split, case_set: CaseSet, source: str) -> None:
    """Refuse a given split that cannot be used as it is."""
    cases = {case.id: case for case in case_set.cases}
    if not split.train or not split.validation:
        raise InputError(f"{source}: the split needs at least one case in `train` and one in `validation`")
    everything = [*split.train, *split.validation]
    _refuse((id for id in everything if id not in cases), f"{source} names the case", "which does not exist")
    _refuse((id for id in everything if everything.count(id) > 1), f"{source} names the case", "twice")
    _refuse((id for id in everything if not cases[id].labelled), f"{source} names the case", "which has no label")
    leaks = {cases[id].patient for id in split.train} & {cases[id].patient for id in split.validation}
    _refuse(sorted(leaks), f"{source} has the patient", "in training and in validation")


def _refuse(found: Iterable[str], what: str, why: str) -> None:
    first = next(iter(found), None)
    if first is not None:
        raise InputError(f"{what} {first!r} {why}")
