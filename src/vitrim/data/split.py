"""Divide cases by patient into training, validation and tuning: drawn from a seed, or given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from vitrim.config.schema import DataConfig, StudyConfig
from vitrim.data.cases import CaseSet
from vitrim.errors import DataError, InputError
from vitrim.files import parse_json, write_json
from vitrim.metrics.statistics import VERDICT_CASES
from vitrim.progress import Reporter


@dataclass(frozen=True)
class Split:
    """Case ids for training, validation and tuning, in order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    tuning: tuple[str, ...] = ()
    """Cases that choose a depth. They are used neither for training nor for the final evaluation."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All case ids of the split."""
        return (*self.train, *self.validation, *self.tuning)

    def counts(self) -> str:
        """Return the number of cases of each kind, as text for the user."""
        kinds = {"training": self.train, "tuning": self.tuning, "validation": self.validation}
        *others, last = [f"{len(ids)} {kind}" for kind, ids in kinds.items() if ids]
        return f"{', '.join(others)} and {last} cases"

    def dump(self) -> dict[str, Any]:
        """Return the split as JSON values, without `tuning` if there is none."""
        return {name: ids for name, ids in asdict(self).items() if ids or name != "tuning"}

    def save(self, path: Path) -> None:
        """Write the split to `path` as JSON."""
        write_json(path, self.dump())

    @classmethod
    def load(cls, path: Path, fold: int = 0) -> Split:
        """Read JSON with the lists `train` and `validation`, or nnU-Net's list of folds with `train` and `val`.

        A list `tuning` is optional. `fold` selects from a list of folds and counts from 0. Raises DataError if the file
        cannot be read, has another content, or has no such fold.
        """
        try:
            content = parse_json(Path(path))
        except InputError as error:
            raise DataError(f"{path} is no split: {error}") from error
        if isinstance(content, list):
            if not 0 <= fold < len(content):
                raise DataError(f"{path} has {len(content)} folds, counted from 0: there is no fold {fold}")
            content = content[fold]
        if isinstance(content, dict):
            train, validation = content.get("train"), content.get("validation", content.get("val"))
            tuning = content.get("tuning", [])
            if _are_ids(train) and _are_ids(validation) and _are_ids(tuning):
                return cls(tuple(train), tuple(validation), tuple(tuning))
        raise DataError(f"{path} is not a split: expected JSON with the lists `train` and `validation` of case ids")


def split_cases(case_set: CaseSet, config: DataConfig, seed: int) -> Split:
    """Divide the labelled cases of `case_set` into training, validation and, if the configuration asks for it, tuning.

    The first of these that is available gives the split: the configuration's split file, its folds, the data set's own
    split, a draw from `seed`. If the split has no tuning cases, they are drawn from its training cases. Cases of one
    patient stay together. Raises DataError if there are too few cases, or if a given split names a case twice, names a
    case that does not exist or has no label, or puts one patient in two parts.
    """
    split = _divide(case_set, config, seed)
    return split if split.tuning or config.tuning == 0 else _with_tuning(split, case_set, config, seed)


def study_splits(case_set: CaseSet, study: StudyConfig) -> dict[int, Split]:
    """Return the splits of a study by fold number; without folds, its one split.

    The draw depends on `study.seed` alone, not on the seeds of the trainings. Raises DataError as `split_cases` does.
    """
    if study.folds is None:
        return {study.data.fold: split_cases(case_set, study.data, study.seed)}
    count = None if study.data.split_file is not None else study.folds
    return {
        fold: split_cases(case_set, study.data.model_copy(update={"folds": count, "fold": fold}), study.seed)
        for fold in range(study.folds)
    }


def counted(splits: dict[int, Split]) -> str:
    """Return the number of cases in the splits, as text for the user."""
    if len(splits) > 1:
        return f"{len({id for split in splits.values() for id in split.ids})} cases in {len(splits)} folds"
    return next(iter(splits.values())).counts()


def _divide(case_set: CaseSet, config: DataConfig, seed: int) -> Split:
    """Divide as `split_cases` does, but leave tuning empty unless a file names it or a draw from `seed` includes it."""
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
            tuple(case.id for case in cases if case.split == "tuning"),
        )
        _check(split, case_set, str(case_set.folder))
        return split
    return _draw(case_set, config, seed)


def _are_ids(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(id, str) for id in value)


def _fold(case_set: CaseSet, folds: int, fold: int, seed: int) -> Split:
    groups = _patients(case_set)
    if len(groups) < folds:
        raise DataError(f"too few cases in {case_set.folder}: {len(groups)} patients with labels for {folds} folds")
    order = np.random.default_rng(seed).permutation(len(groups))
    held_out = {int(n) for n in np.array_split(order, folds)[fold]}
    train = sorted(id for n, ids in enumerate(groups) if n not in held_out for id in ids)
    validation = sorted(id for n, ids in enumerate(groups) if n in held_out for id in ids)
    return Split(tuple(train), tuple(validation))


def _draw(case_set: CaseSet, config: DataConfig, seed: int) -> Split:
    groups = _patients(case_set)
    total = sum(len(ids) for ids in groups)
    held_out = _number(config.validation, total)
    apart = _tuning_number(config, total, held_out)
    order = [groups[n] for n in np.random.default_rng(seed).permutation(len(groups))]
    validation = _take(order, held_out)
    tuning = _take(order, apart)
    train = _take(order, total if config.train is None else config.train)
    few = len(validation) < held_out or len(tuning) < apart or not train
    if few or (config.train is not None and len(train) < config.train):
        raise DataError(
            f"too few cases in {case_set.folder}: {total} with labels, asked for {held_out} to validate"
            f"{f', {apart} to tune' if apart else ''} and {config.train or 'at least 1'} to train"
        )
    return Split(tuple(sorted(train)), tuple(sorted(validation)), tuple(sorted(tuning)))


def _with_tuning(split: Split, case_set: CaseSet, config: DataConfig, seed: int) -> Split:
    """Move cases from training to tuning, drawn by patient; the other training cases keep their order."""
    wanted = _tuning_number(config, len(split.ids), len(split.validation))
    if not wanted:
        return split
    groups = _patients(case_set, split.train)
    tuning = _take([groups[n] for n in np.random.default_rng(seed).permutation(len(groups))], wanted)
    train = tuple(id for id in split.train if id not in tuning)
    if len(tuning) < wanted or not train:
        raise DataError(
            f"too few cases in {case_set.folder}: {len(split.train)} are not held out, asked for {wanted} to tune and"
            f" at least 1 to train"
        )
    return Split(train, split.validation, tuple(sorted(tuning)))


def _tuning_number(config: DataConfig, total: int, held_out: int) -> int:
    """Return the number of tuning cases; `DataConfig.tuning` gives the default."""
    if config.tuning is not None or config.split_file is not None:
        return _number(config.tuning or 0, total)
    wanted = max(TUNING_CASES, round(TUNING_SHARE * total))
    others = total - held_out
    return wanted if 3 * wanted <= others and wanted <= others - (config.train or 0) else 0


def _number(wanted: int | float, total: int) -> int:
    """Convert a share of `total` to a number of cases, at least 1 unless the share is 0. A number stays unchanged."""
    if isinstance(wanted, int):
        return wanted
    return max(1, round(wanted * total)) if wanted else 0


def _take(groups: list[tuple[str, ...]], count: int) -> list[str]:
    """Remove whole patients from `groups` until at least `count` cases are taken; return these cases."""
    taken: list[str] = []
    while groups and len(taken) < count:
        taken.extend(groups.pop(0))
    return taken


def _patients(case_set: CaseSet, among: tuple[str, ...] | None = None) -> list[tuple[str, ...]]:
    """Return the ids of the labelled cases (only those in `among`, if given), grouped by patient, sorted by patient."""
    patients: dict[str, list[str]] = {}
    for case in case_set.labelled:
        if among is None or case.id in among:
            patients.setdefault(case.patient, []).append(case.id)
    return [tuple(ids) for _, ids in sorted(patients.items())]


def _check(split: Split, case_set: CaseSet, source: str) -> None:
    """Raise DataError if a given split cannot be used."""
    cases = {case.id: case for case in case_set.cases}
    if not split.train or not split.validation:
        raise DataError(f"{source}: the split needs at least one case in `train` and one in `validation`")
    everything = split.ids
    _refuse((id for id in everything if id not in cases), f"{source} names the case", "which does not exist")
    _refuse((id for id in everything if everything.count(id) > 1), f"{source} names the case", "twice")
    _refuse((id for id in everything if not cases[id].labelled), f"{source} names the case", "which has no label")
    sides = {"training": split.train, "validation": split.validation, "tuning": split.tuning}
    for (one, ids), (other, more) in combinations(sides.items(), 2):
        leaks = {cases[id].patient for id in ids} & {cases[id].patient for id in more}
        _refuse(sorted(leaks), f"{source} has the patient", f"in {one} and in {other}")


def _refuse(found: Iterable[str], what: str, why: str) -> None:
    """Raise DataError about the first item of `found`, if there is one."""
    first = next(iter(found), None)
    if first is not None:
        raise DataError(f"{what} {first!r} {why}")


TUNING_CASES, TUNING_SHARE = 10, 0.1
"""Default number of tuning cases, or their share if that is more."""
TUNING = 0.2
"""Share of the available cases (at least 8 cases) that choose a depth by accuracy, if the split gives too few."""


def divide(
    cases: CaseSet, split: Split | None, by_accuracy: bool, seed: int, reporter: Reporter
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the cases to train on and, if a depth is chosen `by_accuracy`, the cases to measure accuracy on.

    `split` is the split of the full network's study. Its validation cases are not used, and its tuning cases are never
    trained on. Accuracy is measured on the tuning cases. If they are fewer than 8, the labelled cases outside the split
    are added. If these are still fewer than 8, or if none of the split's training cases is available, a fifth (at least
    8) of the labelled cases outside validation and tuning is drawn from `seed`. Raises DataError if there are too few
    cases.
    """
    split = split or Split((), ())
    labelled = tuple(case.id for case in cases.labelled)
    apart = tuple(case for case in labelled if case in split.tuning)
    usable = tuple(case for case in labelled if case not in {*split.validation, *apart})
    if not usable:
        raise DataError(
            f"no labelled case to train on in {cases.folder}: cases that the network's study used for"
            " validation or tuning do not count"
        )
    if not by_accuracy:
        return usable, ()
    seen = tuple(case for case in usable if case in split.train)
    if len(apart) >= VERDICT_CASES:
        reporter.say(f"accuracy is measured on {len(apart)} cases kept out of the full network's training")
        return seen or usable, apart
    new = (*apart, *(case for case in usable if case not in split.train))
    if seen and len(new) >= VERDICT_CASES:
        return seen, new
    left = [case for case in cases.cases if case.id in usable]
    rest = CaseSet(cases.layout, cases.folder, tuple(left), cases.classes, cases.label_values, cases.channels)
    drawn = split_cases(rest, DataConfig(validation=max(VERDICT_CASES, round(TUNING * len(left)))), seed)
    reporter.say(
        f"note: accuracy is measured on {len(drawn.validation)} cases that the full network may have been trained on"
    )
    return drawn.train, drawn.validation
