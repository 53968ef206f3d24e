"""The device and the precision that a network runs with: chosen here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vitrim.config.names import Device, TrainingPrecision
from vitrim.config.schema import TrainConfig
from vitrim.errors import ConfigurationError

HALF_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Data type of the products in each mixed precision."""


@dataclass(frozen=True)
class Hardware:
    """A device of this machine and a precision, as Lightning names them: "gpu" and "bf16-mixed", for example."""

    device: Literal["cpu", "gpu"]
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]

    @classmethod
    def choose(cls, device: Device = "auto", precision: TrainingPrecision = "auto") -> Hardware:
        """Replace every `auto` by what this machine has: a GPU if there is one, bf16 where it is fast.

        Raises ConfigurationError if a GPU is asked for and torch finds none.
        """
        gpu = torch.cuda.is_available()
        if device == "gpu" and not gpu:
            raise ConfigurationError("device gpu: torch finds no GPU on this machine; choose cpu or auto")
        chosen: Literal["cpu", "gpu"] = ("gpu" if gpu else "cpu") if device == "auto" else device
        if precision == "auto":
            precision = "bf16-mixed" if has_fast_bf16(chosen) else "32-true"
        return cls(chosen, precision)

    @classmethod
    def of(cls, config: TrainConfig | None) -> Hardware:
        """The hardware that a training configuration names; `auto` for what it leaves open, or without one."""
        return cls.choose() if config is None else cls.choose(config.device, config.precision)

    @property
    def torch_device(self) -> str:
        """The device as torch names it: cpu or cuda."""
        return "cuda" if self.device == "gpu" else "cpu"

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which torch computes in this precision."""
        kind = HALF_TYPES.get(self.precision, torch.bfloat16)
        return torch.autocast(self.torch_device, dtype=kind, enabled=self.precision in HALF_TYPES)

    @contextmanager
    def running(self, network: nn.Module) -> Iterator[None]:
        """Put `network`, in eval mode, on the device and compute in the precision. Afterwards it is on the CPU."""
        network.eval().to(self.torch_device)
        try:
            with self.autocast():
                yield
        finally:
            network.to("cpu")


def resolved(config: TrainConfig) -> TrainConfig:
    """Replace every `auto` in a training configuration, so that it says what will run. Errors as `Hardware.choose`."""
    hardware = Hardware.of(config)
    return config.model_copy(update={"device": hardware.device, "precision": hardware.precision})


def has_fast_bf16(device: Literal["cpu", "gpu"]) -> bool:
    """Whether the device multiplies bf16 in hardware (CPU: AVX512-BF16 or AMX). Emulated bf16 is slow."""
    if device == "gpu":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cpu_has_int8() -> bool:
    """Whether the processor has instructions for products of 8-bit integers (VNNI)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))


@contextmanager
def deterministic(device: Literal["cpu", "gpu"]) -> Iterator[None]:
    """Run torch's deterministic algorithms, and put the setting back afterwards.

    On a CPU, an operation that has no deterministic form is an error; on a GPU it is a warning.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device == "gpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
