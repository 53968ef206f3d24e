"""The jobs of a study: a trial and, for a full network, its attention analysis. A job can run in any process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.schema import AttentionConfig
from vitrim.data.cache import PreparedData
from vitrim.errors import by_interrupt
from vitrim.progress import Reporter
from vitrim.studies.attention_step import analyse_full_network
from vitrim.studies.coordinator import Coordinator
from vitrim.studies.failures import Failure, forget, record
from vitrim.studies.trial import Trial, evaluate_nested, evaluate_tuning, finished, run_trial, trial_title


@dataclass(frozen=True)
class Job:
    """A job: train and evaluate a trial; with an `attention_folder`, also measure attention and exchange of tokens."""

    trial: Trial
    attention_folder: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a job: a failure, or for a full network what the attention rule says."""

    failure: Failure | None = None
    sentence: str = ""
    seconds: float | None = None
    """Duration of training and evaluation; None if the job failed or its result was stored already."""


@dataclass(frozen=True)
class Worker:
    """Everything that a process needs to run jobs."""

    data: PreparedData
    attention: AttentionConfig
    margin: float
    """The study's first non-inferiority margin."""
    out: Path
    logger: str | None = None
    """Class name of a Lightning logger."""
    coordinator: Coordinator | None = None
    """Coordinator on node 0 if several machines share each training; None for one machine."""

    def perform(self, job: Job, reporter: Reporter) -> Outcome:
        """Run a job, or read its stored result.

        An exception is recorded in `failed/` and returned as a failure. Only an interrupt is raised.
        """
        key = job.trial.key
        forget(self.out, key)
        begin = time.monotonic()
        new = finished(job.trial, self.out) is None
        try:
            result = run_trial(job.trial, self.data, self.out, reporter, self.logger, self.coordinator)
            evaluate_tuning(result, self.data, reporter)
            if job.trial.training.nested:
                evaluate_nested(result, self.data, reporter)
            seconds = time.monotonic() - begin if new else None
            if job.attention_folder is None:
                return Outcome(seconds=seconds)
            decision = analyse_full_network(
                result, self.attention, self.data, job.attention_folder, reporter, self.margin
            )
            return Outcome(sentence=decision.sentence(), seconds=seconds)
        except Exception as error:
            if by_interrupt(error):
                raise KeyboardInterrupt from error
            failure = Failure.of(key, trial_title(job.trial), error)
            record(self.out, failure)
            return Outcome(failure=failure)


class LocalJobs:
    """Runs jobs in this process, one after another."""

    at_once = 1

    def __init__(self, worker: Worker, reporter: Reporter, starting: Callable[[Job], None]) -> None:
        self._worker, self._reporter, self._starting = worker, reporter, starting
        self._jobs: deque[Job] = deque()

    def add(self, jobs: Sequence[Job], next: bool = False) -> None:
        """Add jobs after the waiting ones; with `next`, before them."""
        if next:
            self._jobs.extendleft(reversed(jobs))
        else:
            self._jobs.extend(jobs)

    def next(self) -> tuple[Job, Outcome] | None:
        """Run one job; None if none is left."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        self._starting(job)
        return job, self._worker.perform(job, self._reporter)

    def close(self) -> None:
        """Do nothing, because this pool holds no resources."""
