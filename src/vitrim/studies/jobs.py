"""The jobs of a study: a training, and for a full network its attention analysis; done in this process or another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrim.config.schema import AttentionConfig
from vitrim.data.cache import PreparedData
from vitrim.progress import Reporter
from vitrim.studies.attention_step import analyse_full_network
from vitrim.studies.coordinator import Coordinator
from vitrim.studies.failures import Failure, forget, record
from vitrim.studies.trial import Trial, finished, run_trial, trial_title


@dataclass(frozen=True)
class Job:
    """Train and evaluate; where `attention_folder` is given, also measure the attention and decide the depth."""

    trial: Trial
    attention_folder: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job: it failed, or `depth` was decided; `seconds` if something was trained."""

    failure: Failure | None = None
    depth: int | None = None
    sentence: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Worker:
    """All that a process needs to do jobs."""

    data: PreparedData
    attention: AttentionConfig
    out: Path
    logger: str | None = None
    coordinator: Coordinator | None = None
    """Of several machines that share each training; this process is then the first one's."""

    def perform(self, job: Job, reporter: Reporter) -> Outcome:
        """Do a job, or find it done. An exception is recorded and returned; only an interrupt is raised."""
        key = job.trial.key
        forget(self.out, key)
        begin = time.monotonic()
        new = finished(job.trial, self.out) is None
        try:
            result = run_trial(job.trial, self.data, self.out, reporter, self.logger, self.coordinator)
            seconds = time.monotonic() - begin if new else None
            if job.attention_folder is None:
                return Outcome(seconds=seconds)
            decision = analyse_full_network(result, self.attention, self.data, job.attention_folder, reporter)
            return Outcome(depth=decision.depth, sentence=decision.sentence(), seconds=seconds)
        except Exception as error:
            failure = Failure.of(key, trial_title(job.trial), error)
            record(self.out, failure)
            return Outcome(failure=failure)


class LocalJobs:
    """Does jobs in order; what follows from a job comes right after it."""

    at_once = 1

    def __init__(self, worker: Worker, reporter: Reporter, starting: Callable[[Job], None]) -> None:
        self._worker, self._reporter, self._starting = worker, reporter, starting
        self._jobs: deque[Job] = deque()

    def add(self, jobs: Sequence[Job], next: bool = False) -> None:
        """Take on jobs, after the others or before them."""
        if next:
            self._jobs.extendleft(reversed(jobs))
        else:
            self._jobs.extend(jobs)

    def next(self) -> tuple[Job, Outcome] | None:
        """Do one job; None when none is left."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        self._starting(job)
        return job, self._worker.perform(job, self._reporter)

    def close(self) -> None:
        """Nothing to give back."""
