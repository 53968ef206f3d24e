"""The device and the precision that a network runs with: chosen here and nowhere else."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
