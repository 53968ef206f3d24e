"""One piece of a study's work, done by whichever process is asked: a training, and a look at the full network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vitrim.config import AttentionConfig
from vitrim.evaluate import EvaluationData
from vitrim.progress import Reporter
from vitrim.study.failures import Failure, forget, record
from vitrim.study.lead import Lead
from vitrim.study.look import look
from vitrim.study.trial import Trial, finished, run_trial, title


@dataclass(frozen=True)
class Job:
    """Train and evaluate; where `look_folder` is given, also measure the attention and decide the depth."""

    trial: Trial
    look_folder: Path | None = None


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

    data: EvaluationData
    attention: AttentionConfig
    out: Path
    logger: str | None = None
    lead: Lead | None = None
    """Of several machines that share each training; this process is then the first one's."""

    def perform(self, job: Job, reporter: Reporter) -> Outcome:
        """Do a job, or find it done. An exception is recorded and returned; only an interrupt is raised."""
        key = job.trial.key
        forget(self.out, key)
        begin = time.monotonic()
        new = finished(job.trial, self.out) is None
        try:
            result = run_trial(job.trial, self.data, self.out, reporter, self.logger, self.lead)
            seconds = time.monotonic() - begin if new else None
            if job.look_folder is None:
                return Outcome(seconds=seconds)
            decision = look(result, self.attention, self.data, job.look_folder, reporter)
            return Outcome(depth=decision.depth, sentence=decision.sentence(), seconds=seconds)
        except Exception as error:
            failure = Failure.of(key, title(job.trial), error)
            record(self.out, failure)
            return Outcome(failure=failure)
