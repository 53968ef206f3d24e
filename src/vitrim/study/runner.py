"""The order of a study (design, section 5): train the full network, look, decide, cut, train alike, compare."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vitrim.attention.decision import Decision
from vitrim.config import NetworkConfig, NetworkName, StudyConfig
from vitrim.data.cases import CaseSet
from vitrim.data.check import beside_paper, check_cases
from vitrim.data.phantom import make_phantom
from vitrim.data.preprocess import Preparation
from vitrim.data.readers import read_cases
from vitrim.data.slices import SliceCache, SliceDataset
from vitrim.data.split import Split, split_cases
from vitrim.errors import InputError
from vitrim.evaluate import EvaluationData
from vitrim.models.factory import build
from vitrim.progress import Reporter
from vitrim.study.examples import Slices, choose_slices, write_examples
from vitrim.study.explorer import write_explorer
from vitrim.study.folder import check_claim, claim
from vitrim.study.look import look
from vitrim.study.tables import gather, results_table, write_table
from vitrim.study.trial import Result, Trial, run_trial
from vitrim.train import resolve

FULL_DEPTH = 12


@dataclass(frozen=True)
class Prepared:
    """The data of a study, checked and ready to be trained on."""

    data: EvaluationData
    split: Split


def run_study(study: StudyConfig, source: Path | None, out: Path, reporter: Reporter) -> Path:
    """Run `study` on the data in the folder `source` (its own phantom if None) and return `out` with everything in it.

    A folder that holds this same study is continued: finished trainings are kept. InputError for anything that is
    wrong with the configuration, the data or the folder; a folder made by a call that finds its input wrong is removed.
    """
    _check_networks(study)
    study = study.model_copy(update={"training": resolve(study.training)})
    check_claim(out, study)
    with _removed_on_bad_input(out):
        prepared = _prepare(study, source, out, reporter)
        claim(out, study, prepared.data.cache.fingerprint)
    prepared.split.save(out / "split.json")

    groups: list[list[Result]] = []
    decisions: dict[NetworkName, Decision] = {}
    for name in study.networks:
        results, decisions[name] = _study_network(study, name, prepared, out, reporter)
        groups.append(results)

    everything = [result for group in groups for result in group]
    slices = len(SliceDataset(prepared.data.cache, prepared.split.train, empty_slices=study.data.empty_slices))
    decided = {str(name): decision.depth for name, decision in decisions.items()}
    fixed = {str(name): network.depths for name, network in study.networks.items()}
    with reporter.stage("tables and examples", 1):
        write_table(out / "results.csv", results_table(groups, decided, fixed, study.margins, slices))
        for file, table in gather(everything).items():
            write_table(out / f"{file}.csv", table)
        shown = choose_slices(everything[0], prepared.data)
        write_examples(out / "examples.npz", shown, everything)
        for group in groups:
            _write_explorer(out, group, shown)
    return out


def _check_networks(study: StudyConfig) -> None:
    """Stop at once, before any data is read, where a network cannot be had: no such form, backbone or weights."""
    if "unetr2d" in study.networks and 0 in study.networks["unetr2d"].depths:
        raise InputError("networks.unetr2d.depths: 0 is not possible, a UNETR without its transformer has no encoder")
    for name in study.networks:
        try:
            build(_network(study, name, num_classes=2, channels=1))
        except InputError as error:
            if not study.pretrained:
                raise
            raise InputError(f"{error} (on the command line: --init FILE, or --init scratch)") from error


def _write_explorer(out: Path, group: list[Result], shown: Slices) -> None:
    """Keep the whole attention of the shown slices, in one network's full and truncated forms, for the report."""
    networks = {result.trial.blocks: result.network() for result in group}
    full = group[0].trial
    write_explorer(
        out / "networks" / full.network.name / "explorer.npz",
        networks,
        shown.images,
        grid=networks[full.blocks].token_grid,
        cases=shown.cases,
        slices=shown.numbers,
        reference=shown.reference,
    )


@contextmanager
def _removed_on_bad_input(out: Path) -> Iterator[None]:
    """Leave nothing half-written behind when the input turns out to be unusable."""
    fresh = not out.exists() or not any(out.iterdir())
    try:
        yield
    except InputError:
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _prepare(study: StudyConfig, source: Path | None, out: Path, reporter: Reporter) -> Prepared:
    """Find the cases, split them by case, and prepare their slices; every voxel is checked on the way."""
    if source is None:
        if study.data.phantom is None:
            raise InputError(f"the study {study.name} needs data: give a folder with --data")
        source = out / "data"
        if not source.is_dir():
            reporter.say(f"making {study.data.phantom.cases} {study.data.phantom.kind} phantoms")
            make_phantom(study.data.phantom, source, study.data.layout)
    cases = read_cases(study.data, source)
    split = split_cases(cases, study.data, study.seed)
    preparation = Preparation.from_config(study.data)
    ids = (*split.train, *split.validation)
    with reporter.stage(f"check {len(ids)} cases", len(ids)) as stage:
        findings = check_cases(cases, study.data, ids, progress=lambda done, total: stage.advance())
    if findings.errors:
        more = len(findings.errors) - 1
        tail = f" (and {more} more: `vitrim data check` lists them all)" if more else ""
        raise InputError(findings.errors[0] + tail)
    for warning in findings.warnings:
        reporter.say(f"  note: {warning}")
    if beside := beside_paper(findings, split):
        reporter.say(f"  {beside}")
    findings.save(out / "data.json")
    with reporter.stage(f"prepare {len(ids)} cases", len(ids)) as stage:
        cache = SliceCache.build(cases, ids, preparation, out / "cache", progress=lambda done, total: stage.advance())
    reporter.say(f"{len(split.train)} training and {len(split.validation)} validation cases, {_classes(cases)}")
    return Prepared(EvaluationData(study.data, cases, cache, preparation), split)


def _classes(cases: CaseSet) -> str:
    names = [name for value, name in cases.classes.items() if value]
    return f"{len(names)} classes: {', '.join(names)}"


def _study_network(
    study: StudyConfig, name: NetworkName, prepared: Prepared, out: Path, reporter: Reporter
) -> tuple[list[Result], Decision]:
    """Full network, decision, truncated networks; the results come deepest first."""
    reporter.say(name)
    full = run_trial(_trial(study, name, FULL_DEPTH, prepared), prepared.data, out / "trials", reporter)
    decision = look(full, study.attention, prepared.data, out / "networks" / name, reporter)
    reporter.say(f"  {decision.sentence()}")
    depths = sorted({decision.depth, *study.networks[name].depths} - {FULL_DEPTH}, reverse=True)
    trials = [_trial(study, name, depth, prepared) for depth in depths]
    return [full, *(run_trial(trial, prepared.data, out / "trials", reporter) for trial in trials)], decision


def _trial(study: StudyConfig, name: NetworkName, blocks: int, prepared: Prepared) -> Trial:
    channels = prepared.data.cache.case(prepared.split.train[0]).images.shape[1]
    return Trial(
        network=_network(study, name, prepared.data.cases.num_classes, channels),
        blocks=blocks,
        training=study.training,
        seed=study.seed,
        data=prepared.data.cache.fingerprint,
        split=prepared.split,
        empty_slices=study.data.empty_slices,
    )


def _network(study: StudyConfig, name: NetworkName, num_classes: int, channels: int) -> NetworkConfig:
    return NetworkConfig(
        name=name,
        num_classes=num_classes,
        depth=FULL_DEPTH,
        size=study.size,
        image_size=study.data.image_size,
        in_chans=channels,
        backbone=study.networks[name].backbone,
        width=study.width,
        pretrained=study.pretrained,
    )
