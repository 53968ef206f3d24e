"""The device, the precision and the cores that a network runs with: chosen here and nowhere else."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vitrim.config.names import Device, TrainingPrecision
from vitrim.config.schema import TrainConfig
from vitrim.errors import ConfigurationError

_log = logging.getLogger(__name__)

HALF_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Data type of the products in each mixed precision."""

FOR_A_GPU = ("tf32", "fp16", "16-mixed")
"""Precisions that only a GPU computes in."""

LOADERS = 4
"""Processes that read training slices for a GPU, unless the configuration says another number."""

LOAD = Path("/proc/loadavg")
"""Where Linux says how many threads want to run."""

PERIOD, WINDOW = 0.2, 10
"""Seconds between two looks at the machine, and how many looks make a mean."""

SET_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables that say how OpenMP waits; if one is set, it holds."""


@dataclass(frozen=True)
class Hardware:
    """A device of this machine and a precision, as Lightning names them: "gpu" and "bf16-mixed", for example."""

    device: Literal["cpu", "gpu"]
    precision: Literal["32-true", "tf32", "bf16-mixed", "16-mixed"]

    @classmethod
    def choose(cls, device: Device = "auto", precision: TrainingPrecision = "auto") -> Hardware:
        """Replace every `auto` by what this machine has: a GPU if there is one, bf16 where it is fast.

        Raises ConfigurationError if a GPU, or a precision that needs one, is asked for and torch finds none.
        """
        gpu = torch.cuda.is_available()
        if device == "gpu" and not gpu:
            raise ConfigurationError("device gpu: torch finds no GPU on this machine; choose cpu or auto")
        chosen: Literal["cpu", "gpu"] = ("gpu" if gpu else "cpu") if device == "auto" else device
        if precision == "auto":
            precision = "bf16-mixed" if has_fast_bf16(chosen) else "32-true"
        check_precision(precision, chosen)
        _log.info("device %s, precision %s, %d threads", chosen, precision, torch.get_num_threads())
        return cls(chosen, precision)

    @classmethod
    def of(cls, config: TrainConfig | None) -> Hardware:
        """The hardware that a training configuration names; `auto` for what it leaves open, or without one."""
        return cls.choose() if config is None else cls.choose(config.device, config.precision)

    @property
    def torch_device(self) -> str:
        """The device as torch names it: cpu or cuda."""
        return "cuda" if self.device == "gpu" else "cpu"

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A context in which torch computes in this precision."""
        kind = HALF_TYPES.get(self.precision, torch.bfloat16)
        enabled = self.precision in HALF_TYPES
        with float32_products(self.precision), torch.autocast(self.torch_device, dtype=kind, enabled=enabled):
            yield

    @contextmanager
    def running(self, network: nn.Module) -> Iterator[None]:
        """Put `network`, in eval mode, on the device and compute in the precision. Afterwards it is on the CPU."""
        network.eval().to(self.torch_device)
        try:
            with self.computing():
                yield
        finally:
            network.to("cpu")


def gpu_memory() -> float | None:
    """Return the memory of the first GPU in GiB; None if torch finds none."""
    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None


def resolved(config: TrainConfig) -> TrainConfig:
    """Replace every `auto` in a training configuration, so that it says what will run.

    Raises ConfigurationError as `Hardware.choose` does, or if a machine has fewer GPUs than `devices`.
    """
    hardware = Hardware.of(config)
    if hardware.device == "gpu" and config.devices > (found := torch.cuda.device_count()):
        raise ConfigurationError(
            f"training.devices is {config.devices}, but torch finds {found} GPU(s) on this machine"
        )
    workers = config.workers
    if workers is None:
        workers = min(LOADERS, os.cpu_count() or 1) if hardware.device == "gpu" else 0
    return config.model_copy(update={"device": hardware.device, "precision": hardware.precision, "workers": workers})


def check_precision(precision: str, device: Literal["cpu", "gpu"]) -> None:
    """Raise ConfigurationError if the device does not compute in `precision`."""
    if device == "cpu" and precision in FOR_A_GPU:
        raise ConfigurationError(f"precision {precision} needs a GPU; on a CPU choose auto")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Compute float32 products on a GPU exactly, or with 10 bits of mantissa if `precision` is tf32.

    torch by itself uses tf32 in convolutions and not in matrix products. The setting is put back afterwards.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def out_of_memory(run: Callable[[int], Any], size: int, option: str) -> str:
    """Say in one line that `size` slices do not fit into the GPU's memory, and how many do.

    `run` computes with some number of slices and is tried with halves of `size`; `option` sets the number. Call this
    outside the `except` block, because an exception keeps the tensors of the failed attempt alive.
    """
    fits = size // 2
    while fits and not _finds_memory(run, fits):
        fits //= 2
    way = (
        f"{fits} do{'es' if fits == 1 else ''}: set {option} {fits}"
        if fits
        else "not even 1 does: choose a smaller network"
    )
    return f"{size} slice{'s do' if size > 1 else ' does'} not fit into the GPU's memory; {way}"


def _finds_memory(run: Callable[[int], Any], size: int) -> bool:
    gc.collect()  # the failed attempt may have left tensors in circles of references
    torch.cuda.empty_cache()
    try:
        run(size)
    except torch.OutOfMemoryError:
        return False
    return True


def has_fast_bf16(device: Literal["cpu", "gpu"]) -> bool:
    """Whether the device multiplies bf16 in hardware (CPU: AVX512-BF16 or AMX). Emulated bf16 is slow."""
    if device == "gpu":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def deterministic() -> Iterator[None]:
    """Run torch's deterministic algorithms, and put the setting back afterwards.

    An operation that has no deterministic form raises RuntimeError; see `allow_random_order`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's matrix products need it
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # for operations that read it; none of ours does
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def allow_random_order(error: RuntimeError) -> bool:
    """Let operations without a deterministic form run, with a warning of torch's, if `error` is about one of them.

    Returns whether it is. Inside `deterministic` only.
    """
    about = "deterministic" in str(error)
    if about:
        torch.use_deterministic_algorithms(True, warn_only=True)
    return about


@contextmanager
def sharing_cores() -> Iterator[None]:
    """A context, or a decorator: inside, torch's threads sleep while they wait, if other processes want the cores too.

    On Linux, torch's threads are those of GNU OpenMP. One that waits for the others keeps its core busy for about 3 ms,
    then it sleeps. That is quickest if no other process wants the core. If one does, both lose most of their time. GNU
    OpenMP waits 3000 times shorter while it has more threads than cores. Its environment variables are read once,
    before torch is imported, but the number of threads can change at any time. So, while others want the cores, more
    threads are started, which do nothing. The number of threads that compute does not change, nor do results.

    Does nothing on other systems than Linux, with one thread, or if the environment says how OpenMP waits.
    """
    team = torch.get_num_threads()
    if not LOAD.is_file() or team == 1 or any(name in os.environ for name in SET_BY_USER):
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(done, team), name="vitrim-shared-cores", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def watch(done: threading.Event, team: int, wanting: Callable[[], int] | None = None, cores: int | None = None) -> None:
    """Start idle threads when more threads of the machine want to run than it has cores; end them when fewer do.

    Returns when `done` is set. `team` is the number of threads that compute, at least 2. `wanting` counts the threads
    that want to run, by default those of the machine without this one; `cores` is by default the number of the
    machine's cores.
    """
    wanting, cores = wanting or _wanting, cores or os.cpu_count() or 1
    looks: deque[int] = deque(maxlen=WINDOW)
    idle: IdleThreads | None = None
    while not done.wait(PERIOD):
        looks.append(wanting())
        mean = sum(looks) / len(looks)
        if len(looks) < WINDOW:
            continue
        if idle is None and mean > cores + 0.5:
            idle = IdleThreads(team)
            _log.info("other processes want the cores: %.1f threads for %d; waiting threads sleep", mean, cores)
            looks.clear()
        elif idle is not None and mean < cores:
            idle.end()
            idle = None
            _log.info("the cores are free again")
            looks.clear()
    if idle is not None:
        idle.end()


def _wanting() -> int:
    """Number of threads on this machine that run or could, without this one."""
    return int(LOAD.read_text(encoding="ascii").split()[3].split("/")[0]) - 1


class IdleThreads:
    """Threads of OpenMP that do nothing, so many that with the `team` that computes OpenMP has more than cores."""

    def __init__(self, team: int) -> None:
        cores = len(os.sched_getaffinity(0))
        self._end = threading.Event()
        ready = threading.Barrier(1 + max(1, -(-(cores + 1 - team) // (team - 1))))
        self._masters = [
            threading.Thread(target=self._hold, args=(team, ready), daemon=True) for _ in range(ready.parties - 1)
        ]
        for master in self._masters:
            master.start()
        ready.wait()

    def _hold(self, team: int, ready: threading.Barrier) -> None:
        """Have OpenMP start a team for this thread; the team lives as long as the thread."""
        try:
            torch.zeros(team << 15).add_(1)  # torch gives each thread at least 2^15 elements
        finally:
            ready.wait()
        self._end.wait()

    def end(self) -> None:
        """End the threads."""
        self._end.set()
        for master in self._masters:
            master.join()
