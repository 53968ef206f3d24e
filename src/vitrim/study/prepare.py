"""The data of a study: found, split by case, checked voxel by voxel, and cut into slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitrim.config import StudyConfig
from vitrim.data.cases import CaseSet
from vitrim.data.check import beside_paper, check_cases
from vitrim.data.phantom import make_phantom
from vitrim.data.preprocess import Preparation
from vitrim.data.readers import read_cases
from vitrim.data.slices import SliceCache, SliceDataset
from vitrim.data.split import Split, counted, study_splits
from vitrim.errors import InputError
from vitrim.evaluate import EvaluationData
from vitrim.files import write_json
from vitrim.progress import Reporter
from vitrim.study.statistics import MINIMUM_CASES
from vitrim.train import check_batch


@dataclass(frozen=True)
class Prepared:
    """The data of a study, checked and ready to be trained on; a split for each fold that is trained."""

    data: EvaluationData
    splits: dict[int, Split]

    def save_split(self, path: Path) -> None:
        """Write the split, or the list of folds, as a file that `data.split_file` can name."""
        splits = list(self.splits.values())
        if len(splits) == 1:
            splits[0].save(path)
        else:
            write_json(path, [split.dump() for split in splits])


def prepare(study: StudyConfig, source: Path | None, out: Path, reporter: Reporter) -> Prepared:
    """Read the cases in `source` (the study's own phantom if None) and prepare their slices in `out`.

    InputError where there are no data, where anything in them is wrong, or where they do not fill a batch.
    """
    if source is None:
        if study.data.phantom is None:
            raise InputError(f"the study {study.name} needs data: give a folder with --data")
        source = out / "data"
        if not source.is_dir():
            reporter.say(f"making {study.data.phantom.cases} {study.data.phantom.kind} phantoms")
            make_phantom(study.data.phantom, source, study.data.layout)
    cases = read_cases(study.data, source)
    splits = study_splits(cases, study)
    preparation = Preparation.from_config(study.data)
    ids = tuple(dict.fromkeys(id for split in splits.values() for id in split.ids))
    used = tuple(dict.fromkeys(id for split in splits.values() for id in (*split.train, *split.validation)))
    with reporter.stage(f"check {len(ids)} cases", len(ids)) as stage:
        findings = check_cases(cases, study.data, ids, progress=lambda done, total: stage.advance())
    if findings.errors:
        more = len(findings.errors) - 1
        tail = f" (and {more} more: `vitrim data check` lists them all)" if more else ""
        raise InputError(findings.errors[0] + tail)
    for warning in findings.warnings:
        reporter.say(f"  note: {warning}")
    first = next(iter(splits.values()))
    if len(splits) == 1 and (beside := beside_paper(findings, first)):
        reporter.say(f"  {beside}")
    findings.save(out / "data.json")
    with reporter.stage(f"prepare {len(used)} cases", len(used)) as stage:
        cache = SliceCache.build(cases, used, preparation, out / "cache", progress=lambda done, total: stage.advance())
    for split in splits.values():
        check_batch(study.training, train_slices(cache, split, study))
    reporter.say(f"{counted(splits)}, {_classes(cases)}")
    if 0 < len(first.tuning) < MINIMUM_CASES:
        reporter.say(f"  note: `vitrim compress` chooses by accuracy on {MINIMUM_CASES} tuning cases or more")
    return Prepared(EvaluationData(study.data, cases, cache, preparation), splits)


def train_slices(cache: SliceCache, split: Split, study: StudyConfig) -> int:
    """Slices that take part in training."""
    return len(SliceDataset(cache, split.train, empty_slices=study.data.empty_slices))


def _classes(cases: CaseSet) -> str:
    names = [name for value, name in cases.classes.items() if value]
    return f"{len(names)} classes: {', '.join(names)}"
