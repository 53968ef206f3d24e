"""Runs a study: train full networks, measure attention, decide depths, train truncated networks, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

from vitrim.compression.depth_decision import DepthDecision
from vitrim.config.names import NetworkName
from vitrim.config.schema import StudyConfig, TrainConfig
from vitrim.errors import ConfigurationError, InputError
from vitrim.hardware import resolved, sharing_cores
from vitrim.progress import Reporter
from vitrim.studies.control import reach_lines
from vitrim.studies.coordinator import Coordinator, coordinating
from vitrim.studies.folder import remove_if_empty
from vitrim.studies.jobs import Job, LocalJobs, Outcome, Worker
from vitrim.studies.plan import Plan, RunKey, absolute, check_networks, left_out
from vitrim.studies.results import Done, record_study, write_results
from vitrim.studies.search import NetworkSearch
from vitrim.studies.snapshots import write_training_slices
from vitrim.studies.status import SLICES, Status, duration
from vitrim.studies.study_data import check_source, open_study
from vitrim.studies.threads import study_threads
from vitrim.studies.trial import finished, trial_title
from vitrim.training.augmentation import check_augmentation
from vitrim.training.distributed import Rendezvous, rendezvous
from vitrim.training.loggers import make_logger
from vitrim.training.loop import check_shares


class Pool(Protocol):
    """Interface of job pools. A pool runs jobs in this process or in others."""

    at_once: int

    def add(self, jobs: list[Job], next: bool = False) -> None: ...
    def next(self) -> tuple[Job, Outcome] | None: ...
    def close(self) -> None: ...


def run_study(
    study: StudyConfig,
    source: Path | None,
    out: Path,
    reporter: Reporter,
    *,
    logger: str | None = None,
    ray: str | None = None,
) -> Path:
    """Run `study` on the data in the folder `source` (its own phantom if None). Return the folder `out`.

    If `out` holds this same study, the study continues: finished trainings are kept, a killed training resumes after
    its last saved epoch, a failed training is tried again. Trainings that fail are recorded in `failed/` and left out
    of the tables (`vitrim.studies.failures.failures(out)` reads the records). With `training.nodes` above 1, this is
    node 0 of several machines; the others call `vitrim.studies.participant.participate`.

    Args:
        logger: class name of a Lightning logger; history.csv is written in any case.
        ray: address of a Ray cluster that runs the trials, or "local" to start one on this machine.

    Raises:
        InputError: if the configuration, the data or the folder is wrong, or if another process runs this study. If
            the input is wrong, a new folder is removed again.
    """
    here = this_machine(study.training, ray)
    if here is not None and here.node > 0:
        raise InputError(
            f"this is node {here.node}: node 0 runs the study, the others join it (vitrim.studies.participant)"
        )
    with coordinating(here, study.training.nodes) as coordinator:
        if here is not None:
            reporter.say(
                f"node 0 of {study.training.nodes}: the others find it at {here.address}, port {here.port + 1}"
            )
        return _run_study(study, source, out, reporter, logger, ray, coordinator)


def this_machine(training: TrainConfig, ray: str | None) -> Rendezvous | None:
    """Return the rendezvous of this machine if several machines share each training; None otherwise.

    Raises ConfigurationError if Ray is also given or a batch does not divide evenly among the devices, and InputError
    as `rendezvous` does.
    """
    if training.nodes == 1:
        return None
    if ray is not None:
        raise ConfigurationError("--ray and --nodes exclude each other: Ray gives each training to one machine")
    check_shares(training)
    return rendezvous(training.nodes)


def _run_study(
    study: StudyConfig,
    source: Path | None,
    out: Path,
    reporter: Reporter,
    logger: str | None,
    ray: str | None,
    coordinator: Coordinator | None,
) -> Path:
    check_source(study, source)  # before anything that takes long
    make_logger(logger, out / "logs", "check")
    check_augmentation(study.training.augment)
    origins = check_networks(study)
    if ray is not None:
        from vitrim.studies.ray_cluster import connect, resolved_there

        out, source = out.resolve(), source.resolve() if source else None  # workers have another working directory
        study = study.model_copy(update={"pretrained": absolute(study.pretrained)})
        connect(ray)
        study = study.model_copy(update={"training": resolved_there(study.training)})
    else:
        study = study.model_copy(update={"training": resolved(study.training)})
    began = time.monotonic()
    threads = study_threads(study.training, out, reporter) if ray is None else nullcontext()
    with threads, sharing_cores(), open_study(study, source, out, reporter) as study_data:
        study_data.save_split(out / "split.json")
        plan = Plan(study, study_data, origins)
        if not (out / SLICES).is_file():
            write_training_slices(out / SLICES, study_data.splits[plan.run_keys[0].fold].train, study_data.data)
        for line in (*left_out(study), *reach_lines(study)):
            reporter.say(f"note: {line}")
        worker = Worker(study_data.data, study.attention, study.margins[0], out, logger, coordinator)
        done = _run(plan, out, reporter, lambda starting: _pool(ray, worker, study, reporter, starting))
        if done:
            with reporter.stage("tables and examples", 1):
                write_results(plan, done, out)
        (out / SLICES).unlink(missing_ok=True)
        remove_if_empty(out / "unfinished", out / "failed")
        record_study(plan, [each.result for each in done], out, time.monotonic() - began)
    return out


def _pool(
    ray: str | None, worker: Worker, study: StudyConfig, reporter: Reporter, starting: Callable[[Job], None]
) -> Pool:
    if ray is None:
        return LocalJobs(worker, reporter, starting)
    from vitrim.studies.ray_cluster import RayCluster

    return RayCluster(worker, study.training, reporter, starting)


def _run(plan: Plan, out: Path, reporter: Reporter, make: Callable[[Callable[[Job], None]], Pool]) -> list[Done]:
    """Run all trials and return the finished ones, in order of the run keys. Each network's search adds its trials."""
    searches = {name: NetworkSearch(plan, name, out) for name in plan.study.networks}
    status = Status(out)

    def starting(job: Job) -> None:
        if finished(job.trial, out):
            return
        number, more = status.count("finished", "failed") + 1, _still_unknown(plan, status)
        left = status.left(more=more)
        reporter.say(
            f"trial {number} of {len(status.trials) + more} known so far"
            + (f", about {duration(left)} to go" if left is not None else "")
        )
        status.set(job.trial.key, trial_title(job.trial), "running")

    def add(jobs: list[Job], next: bool = False) -> None:
        for job in jobs:
            status.set(job.trial.key, trial_title(job.trial), "waiting")
        pool.add(jobs, next=next)

    pool = make(starting)
    status.at_once = pool.at_once
    trained: dict[str, Job] = {}
    try:
        order = plan.run_keys
        jobs = [job for search in searches.values() for job in search.start()]
        add(sorted(jobs, key=lambda job: _place(order, plan.run_key_of(job.trial))))
        while (answer := pool.next()) is not None:
            job, outcome = answer
            trained[job.trial.key] = job
            status.set(
                job.trial.key, trial_title(job.trial), "failed" if outcome.failure else "finished", outcome.seconds
            )
            if outcome.failure:
                reporter.say(f"  failed: {outcome.failure.sentence()}")
                if job.attention_folder is not None:
                    reporter.say(f"  {trial_title(job.trial)}: without this network no depth can be compared; "
                                 "its truncated networks are left out")  # fmt: skip
            elif outcome.sentence:
                reporter.say(f"  {outcome.sentence}")
            add(searches[job.trial.network.name].after(job, outcome), next=True)
    finally:
        pool.close()
    decisions = {name: search.finish() for name, search in searches.items()}
    for decision in decisions.values():
        if decision is not None:
            reporter.say(f"  {decision.in_words()}")
    done = []
    for job in trained.values():
        result = finished(job.trial, out)
        search, run_key = searches[job.trial.network.name], plan.run_key_of(job.trial)
        if result is None or not search.run_keys or (run_key is not None and run_key not in search.run_keys):
            continue
        if not job.trial.training.nested:
            done.append(Done(run_key or search.run_keys[0], result, _role(plan, job, search, decisions)))
    return sorted(done, key=lambda each: (order.index(each.run_key), each.role != "full", -each.blocks))


def _place(order: list[RunKey], key: RunKey | None) -> int:
    """The place of a run key in the order of the study; the noise floor comes last."""
    return len(order) if key is None else order.index(key)


def _still_unknown(plan: Plan, status: Status) -> int:
    """About how many trials will follow that are not in the list yet: fixed depths and one proposed depth each."""
    expected = sum(1 + len(plan.fixed(key.network)) + min(1, plan.study.tries) for key in plan.run_keys)
    return max(0, expected - len(status.trials))


def _role(plan: Plan, job: Job, search: NetworkSearch, decisions: Mapping[NetworkName, DepthDecision | None]) -> str:
    """Return why a network was trained, as in `vitrim.studies.result_tables.Row`."""
    trial = job.trial
    if trial.blocks == trial.network.depth:
        return "noise" if plan.run_key_of(trial) is None else "full"
    decision = decisions[trial.network.name]
    reasons = {
        "decided": decision is not None and decision.depth == trial.blocks,
        "tried": trial.blocks in search.trained,
        "fixed": trial.blocks in plan.fixed(trial.network.name),
    }
    if reasons["decided"]:
        reasons["tried"] = False
    return "+".join(name for name, holds in reasons.items() if holds)
