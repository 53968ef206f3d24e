"""Which cases a smaller network learns from, and on which its accuracy is measured."""

from __future__ import annotations

from vitrim.config import DataConfig
from vitrim.data.cases import CaseSet
from vitrim.data.split import Split, split_cases
from vitrim.errors import InputError
from vitrim.progress import Reporter
from vitrim.study.statistics import MINIMUM_CASES

TUNING = 0.2
"""Share of the training cases (5 at least) on which a depth is chosen by accuracy, where no others are given."""


def divide(
    cases: CaseSet, split: Split | None, by_accuracy: bool, seed: int, reporter: Reporter
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cases to learn from and, if something is chosen `by_accuracy`, cases to measure that on.

    `split` is that of the full network's study: what it held out takes no part, and what it kept for tuning is
    measured on and never learned. Fewer than 5 such cases are too few; then come 5 or more that are in no part of the
    split, or else a fifth of the training cases, drawn from `seed`. InputError where there are too few cases of all.
    """
    split = split or Split((), ())
    labelled = tuple(case.id for case in cases.labelled)
    apart = tuple(case for case in labelled if case in split.tuning)
    usable = tuple(case for case in labelled if case not in {*split.validation, *apart})
    if not usable:
        raise InputError(f"{cases.folder} holds no labelled case that the network's own study did not hold out")
    if not by_accuracy:
        return usable, ()
    seen = tuple(case for case in usable if case in split.train)
    if len(apart) >= MINIMUM_CASES:
        reporter.say(f"accuracy is measured on {len(apart)} cases kept out of the full network's training")
        return seen or usable, apart
    new = (*apart, *(case for case in usable if case not in split.train))
    if seen and len(new) >= MINIMUM_CASES:
        return seen, new
    left = [case for case in cases.cases if case.id in usable]
    rest = CaseSet(cases.layout, cases.folder, tuple(left), cases.classes, cases.label_values, cases.channels)
    drawn = split_cases(rest, DataConfig(validation=max(MINIMUM_CASES, round(TUNING * len(left)))), seed)
    reporter.say(f"note: accuracy is measured on {len(drawn.validation)} cases that the full network may have learned")
    return drawn.train, drawn.validation
