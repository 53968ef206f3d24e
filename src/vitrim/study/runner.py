"""The order of a study (design, section 5): train the full network, look, decide, cut, train alike, compare."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vitrim.config import StudyConfig, TrainConfig
from vitrim.devices import Meeting, meeting
from vitrim.errors import InputError
from vitrim.progress import Reporter
from vitrim.study.control import reach_lines
from vitrim.study.folder import remove_if_empty
from vitrim.study.job import Job, Outcome, Worker
from vitrim.study.lead import Lead, leading
from vitrim.study.local import Local
from vitrim.study.loggers import make_logger
from vitrim.study.opening import opened
from vitrim.study.plan import Place, Plan, absolute, check_networks, left_out
from vitrim.study.record import record_study
from vitrim.study.results import Done, write_results
from vitrim.study.status import Status, duration
from vitrim.study.trial import finished, title
from vitrim.train import check_shares, resolve


class Pool(Protocol):
    """Does jobs, in this process or in others."""

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
    """Run `study` on the data in the folder `source` (its own phantom if None) and return `out` with everything in it.

    A folder that holds this same study is continued: finished trainings are kept, one that was killed goes on with its
    last epoch, one that failed is tried again. Trainings that fail are recorded in `failed/` and left out of the tables
    (`vitrim.study.failures.failures(out)` reads the records). With `training.nodes` above 1 this is node 0 of several
    machines; the others call `vitrim.study.follow.follow`.

    Args:
        logger: class name of one of Lightning's loggers, beside the history that is always written.
        ray: do the trials on a Ray cluster: its address, or "local" for one on this machine.

    Raises:
        InputError: for anything that is wrong with the configuration, the data or the folder, or if another process is
            running this study; a folder made by a call that finds its input wrong is removed.
    """
    place = here(study.training, ray)
    if place is not None and place.node > 0:
        raise InputError(f"this is node {place.node}: node 0 runs the study, the others follow (vitrim.study.follow)")
    with leading(place, study.training.nodes) as lead:
        if place is not None:
            reporter.say(
                f"node 0 of {study.training.nodes}: the others find it at {place.address}, port {place.port + 1}"
            )
        return _run_study(study, source, out, reporter, logger, ray, lead)


def here(training: TrainConfig, ray: str | None) -> Meeting | None:
    """Which of the machines that share each training this is; None where there is one. InputError as `meeting`."""
    if training.nodes == 1:
        return None
    if ray is not None:
        raise InputError("--ray and --nodes exclude each other: Ray gives each training to one machine")
    check_shares(training)
    return meeting(training.nodes)


def _run_study(
    study: StudyConfig,
    source: Path | None,
    out: Path,
    reporter: Reporter,
    logger: str | None,
    ray: str | None,
    lead: Lead | None,
) -> Path:
    make_logger(logger, out / "logs", "check")
    origins = check_networks(study)
    if ray is not None:
        from vitrim.study.cluster import connect, resolve_there

        out, source = out.resolve(), source.resolve() if source else None  # other processes have other folders
        study = study.model_copy(update={"pretrained": absolute(study.pretrained)})
        connect(ray)
        study = study.model_copy(update={"training": resolve_there(study.training)})
    else:
        study = study.model_copy(update={"training": resolve(study.training)})
    began = time.monotonic()
    with opened(study, source, out, reporter) as prepared:
        prepared.save_split(out / "split.json")
        plan = Plan(study, prepared, origins)
        for line in (*left_out(study), *reach_lines(study)):
            reporter.say(f"note: {line}")
        worker = Worker(prepared.data, study.attention, out, logger, lead)
        done = _run(plan, out, reporter, lambda starting: _pool(ray, worker, study, reporter, starting))
        if done:
            with reporter.stage("tables and examples", 1):
                write_results(plan, done, out)
        remove_if_empty(out / "unfinished", out / "failed")
        record_study(plan, [each.result for each in done], out, time.monotonic() - began)
    return out


def _pool(
    ray: str | None, worker: Worker, study: StudyConfig, reporter: Reporter, starting: Callable[[Job], None]
) -> Pool:
    if ray is None:
        return Local(worker, reporter, starting)
    from vitrim.study.cluster import Cluster

    return Cluster(worker, study.training, reporter, starting)


def _run(plan: Plan, out: Path, reporter: Reporter, make: Callable[[Callable[[Job], None]], Pool]) -> list[Done]:
    """Do all trials, the full networks deciding what else there is to do; those that succeeded, in order."""
    places = {plan.full(place).key: place for place in plan.places}
    truncated: dict[Place, list[Job]] = {}
    decided: dict[Place, int] = {}
    missing = {place: len(plan.fixed(place.network)) for place in plan.places}  # known to come, not yet asked for
    status = Status(out)

    def starting(job: Job) -> None:
        if finished(job.trial, out):
            return
        number = status.count("finished", "failed") + 1
        left = status.left(more=sum(missing.values()))
        reporter.say(
            f"trial {number} of {len(status.trials) + sum(missing.values())} known so far"
            + (f", about {duration(left)} to go" if left is not None else "")
        )
        status.set(job.trial.key, title(job.trial), "running")

    pool = make(starting)
    status.at_once = pool.at_once
    try:
        full = [Job(plan.full(place), plan.look_folder(out, place)) for place in plan.places]
        for job in full:
            status.set(job.trial.key, title(job.trial), "waiting")
        pool.add(full)
        while (answer := pool.next()) is not None:
            job, outcome = answer
            status.set(job.trial.key, title(job.trial), "failed" if outcome.failure else "finished", outcome.seconds)
            if outcome.failure:
                reporter.say(f"  failed: {outcome.failure.sentence()}")
            place = places.get(job.trial.key)
            if place is None:
                continue
            missing.pop(place)
            if outcome.depth is None:
                reporter.say(f"  {title(job.trial)}: without it no depth is decided and nothing compared; "
                             "its truncated networks are left out")  # fmt: skip
                continue
            reporter.say(f"  {outcome.sentence}")
            decided[place] = outcome.depth
            truncated[place] = [Job(trial) for trial in plan.truncated(place, outcome.depth)]
            for each in truncated[place]:
                status.set(each.trial.key, title(each.trial), "waiting")
            pool.add(truncated[place], next=True)
    finally:
        pool.close()
    done = []
    for place, depth in decided.items():
        for trial in (plan.full(place), *(job.trial for job in truncated[place])):
            if (result := finished(trial, out)) is not None:
                done.append(Done(place, result, depth))
    order = plan.places
    return sorted(done, key=lambda each: order.index(each.place))
