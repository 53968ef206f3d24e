"""A study's jobs in this process, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from vitrim.progress import Reporter
from vitrim.study.job import Job, Outcome, Worker


class Local:
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
