"""The data of a study: reads the cases, splits them, checks every voxel, and prepares the slices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.schema import StudyConfig
from vitrim.data.cache import PreparedData, SliceCache, SliceDataset, prepare_cases
from vitrim.data.cases import CaseSet
from vitrim.data.check import beside_paper
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.readers.find_files import some
from vitrim.data.split import Split, counted, study_splits
from vitrim.errors import DataError, InputError
from vitrim.files import write_json
from vitrim.metrics.statistics import VERDICT_CASES
from vitrim.progress import Reporter
from vitrim.studies.folder import begin, check_claim, claim, holds_only_ours, is_begun_only, sweep
from vitrim.studies.lock import locked
from vitrim.studies.status import Status
from vitrim.training.loop import check_batch


@dataclass(frozen=True)
class StudyData:
    """The checked and prepared data of a study, with its split for each fold."""

    data: PreparedData
    splits: dict[int, Split]
    """Split by fold number."""

    def save_split(self, path: Path) -> None:
        """Write the split, or the list of folds, as a file for `data.split_file`."""
        splits = list(self.splits.values())
        if len(splits) == 1:
            splits[0].save(path)
        else:
            write_json(path, [split.dump() for split in splits])


def check_source(study: StudyConfig, source: Path | None) -> None:
    """Raise InputError if the folder `source` of a study's data is missing. Nothing is read."""
    if source is None and study.data.phantom is None:
        raise InputError(f"the study {study.name} needs data: give a folder with --data")
    if source is not None and not source.is_dir():
        raise DataError(f"no such data folder: {source}")


def prepare_study(study: StudyConfig, source: Path | None, out: Path, reporter: Reporter) -> StudyData:
    """Read the cases in `source` (the study's own phantom if None) and prepare their slices in `out`.

    Raises InputError if there are no data, if the data have an error, or if the training slices do not fill a batch.
    """
    check_source(study, source)
    if source is None:
        assert study.data.phantom is not None
        source = out / "data"
        if not source.is_dir():
            reporter.say(f"making {study.data.phantom.cases} {study.data.phantom.kind} phantoms")
            write_phantom(study.data.phantom, source, study.data.layout)
    cases = read_cases(study.data, source)
    splits = study_splits(cases, study)
    if study.training.checkpoint == "best" and not all(split.tuning for split in splits.values()):
        raise DataError(
            f"training.checkpoint: best needs tuning cases, and the split has none ({counted(splits)}): "
            "set data.tuning, or checkpoint to last"
        )
    ids = tuple(dict.fromkeys(id for split in splits.values() for id in split.ids))
    with reporter.stage(f"check and prepare {len(ids)} cases", len(ids)) as stage:
        findings, cache = prepare_cases(
            cases, study.data, ids, ids, out / "cache", progress=lambda done, total: stage.advance()
        )
    if findings.errors:
        more = len(findings.errors) - 1
        tail = f" (and {more} more: `vitrim data check` lists them all)" if more else ""
        raise DataError(findings.errors[0] + tail)
    for warning in findings.warnings:
        reporter.say(f"  note: {warning}")
    first = next(iter(splits.values()))
    if len(splits) == 1 and (beside := beside_paper(findings, first)):
        reporter.say(f"  {beside}")
    findings.save(out / "data.json")
    for split in splits.values():
        check_batch(study.training, train_slices(cache, split, study))
    reporter.say(f"{counted(splits)}, {_classes(cases)}")
    left = [id for id in cases.ids if id not in ids]
    if left:
        reporter.say(f"  note: {len(left)} of {len(cases.ids)} cases are in no part of the split: {some(left)}")
    if len(first.tuning) < VERDICT_CASES and study.tries:
        reporter.say(
            f"  note: with fewer than {VERDICT_CASES} tuning cases no depth can be chosen by accuracy: of each network "
            "only the proposed depth is trained (data.tuning sets cases aside)"
        )
    return StudyData(PreparedData(study.data, cases, cache, Preprocessing.from_config(study.data)), splits)


def train_slices(cache: SliceCache, split: Split, study: StudyConfig) -> int:
    """Return the number of training slices of a split."""
    return len(SliceDataset(cache, split.train, empty_slices=study.data.empty_slices))


def _classes(cases: CaseSet) -> str:
    names = [name for value, name in cases.classes.items() if value]
    return f"{len(names)} classes: {', '.join(names)}"


@contextmanager
def open_study(study: StudyConfig, source: Path | None, out: Path, reporter: Reporter) -> Iterator[StudyData]:
    """Hold the lock of the folder `out`, prepare the data of `study` in it, and yield them.

    Device and precision of `study` must be resolved. Raises InputError if the folder holds something else, if another
    process holds its lock, or if the data are wrong. If the data are wrong, a new folder is removed again.
    """
    check_claim(out, study)
    with locked(out):
        check_claim(out, study)  # another process may have written into it since
        sweep(out)
        begin(out, study)
        Status(out).write()  # so that the error of a second process can name this one
        with _removed_on_bad_input(out):
            prepared = prepare_study(study, source, out, reporter)
            claim(out, study, prepared.data.cache.fingerprint)
        yield prepared


@contextmanager
def _removed_on_bad_input(out: Path) -> Iterator[None]:
    """After an InputError, remove `out` if the study never had usable data."""
    try:
        yield
    except InputError:
        if is_begun_only(out) and holds_only_ours(out):
            shutil.rmtree(out, ignore_errors=True)
        raise
