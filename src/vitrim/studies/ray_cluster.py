"""Runs a study's jobs on a Ray cluster. The machines share the study's folder; only this process writes the tables."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console

from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError
from vitrim.hardware import resolved
from vitrim.progress import Reporter
from vitrim.studies.failures import Failure, record
from vitrim.studies.jobs import Job, Outcome, Worker
from vitrim.studies.status import heartbeats, where
from vitrim.studies.trial import trial_title

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise InputError("--ray needs Ray: pip install 'vitrim[ray]'") from error

RETRIES = 3
"""Number of restarts of a job whose process or machine died. Each restart resumes after the last saved epoch."""
POLL, SECONDS_BETWEEN_LINES = 1.0, 30.0


def connect(address: str) -> None:
    """Connect to the cluster at `address`, or start one on this machine ("local"). Raises InputError if that fails."""
    if ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # fail early: Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster at {address}: {' '.join(str(error).split())}") from error


def resolved_there(config: TrainConfig) -> TrainConfig:
    """Replace every `auto` by the device and precision of a machine of the cluster, which can differ from this one."""
    gpu = config.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    return ray.get(ray.remote(num_gpus=1 if gpu else 0)(resolved).remote(config))


class RayCluster:
    """Runs jobs on the free machines. A job reserves as many threads per process as on this machine, and its GPUs."""

    def __init__(
        self, worker: Worker, training: TrainConfig, reporter: Reporter, starting: Callable[[Job], None]
    ) -> None:
        threads = torch.get_num_threads()
        gpus = training.devices if training.device == "gpu" else 0
        cpus = threads * (1 if gpus else training.devices)
        self.at_once = _room(cpus, gpus)
        self._do = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_do)
        self._out, self._worker, self._threads = worker.out, ray.put(worker), threads
        self._reporter, self._starting = reporter, starting
        self._jobs: dict[Any, Job] = {}
        self._started: set[str] = set()
        self._said = time.monotonic()

    def add(self, jobs: Sequence[Job], next: bool = False) -> None:
        """Add jobs. Ray decides when they run and on which machine, so `next` has no effect."""
        for job in jobs:
            self._jobs[self._do.remote(self._worker, job, self._threads)] = job

    def next(self) -> tuple[Job, Outcome] | None:
        """Wait until a job is done, and return it with its outcome; None if no job is left."""
        while self._jobs:
            done, _ = ray.wait(list(self._jobs), num_returns=1, timeout=POLL)
            self._watch()
            if done:
                job = self._jobs.pop(done[0])
                return job, self._outcome(job, done[0])
        return None

    def close(self) -> None:
        """Disconnect from the cluster. A cluster that `connect` started ends."""
        ray.shutdown()

    def _outcome(self, job: Job, done: Any) -> Outcome:
        try:
            return ray.get(done)
        except RayError as error:  # the process died more than RETRIES times
            failure = Failure.of(job.trial.key, trial_title(job.trial), error)
            record(self._out, failure)
            return Outcome(failure=failure)

    def _watch(self) -> None:
        """Report the jobs that have started and, every `SECONDS_BETWEEN_LINES` seconds, all running trainings."""
        running = heartbeats(self._out)
        for job in self._jobs.values():
            if job.trial.key in running and job.trial.key not in self._started:
                self._started.add(job.trial.key)
                self._starting(job)
        if self._reporter.progress and running and time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            for beat in running.values():
                self._reporter.say(f"  {where(beat)}")


def _do(worker: Worker, job: Job, threads: int) -> Outcome:
    """Run a job in a process of the cluster, without output."""
    torch.set_num_threads(threads)
    return worker.perform(job, Reporter(Console(quiet=True)))


def _room(cpus: int, gpus: int) -> int:
    """Return how many jobs the cluster can run at the same time. Raises InputError if no machine can run one."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            by_gpu = [int(has.get("GPU", 0) // gpus)] if gpus else []
            room += min([int(has.get("CPU", 0) // cpus), *by_gpu])
    if room == 0:
        needs = f"{cpus} CPUs" + (f" and {gpus} GPUs" if gpus else "")
        raise InputError(f"--ray: no machine of the cluster has the {needs} that one training needs")
    return room
