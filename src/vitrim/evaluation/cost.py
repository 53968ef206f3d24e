"""Cost of running a network: time per slice and peak memory."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from vitrim.evaluation.segment import BATCH, predict_slices
from vitrim.hardware import Hardware

ROUNDS = 5
"""How often each network is timed. Networks that are compared take turns, so that other work slows all of them."""


def measure_costs(
    networks: Sequence[nn.Module], images: np.ndarray, hardware: Hardware, rounds: int | None = None
) -> list[dict[str, float | str]]:
    """Measure time and memory of predicting slices (S, C, H, W), in batches of 8, on the device of `hardware`.

    At most 16 slices are used. milliseconds_per_slice is the shortest time of `rounds` runs (`ROUNDS` by default); the
    networks take turns. peak_memory_mib (MiB) is the largest total size of weights and tensors in memory at the same
    time. On a GPU, CUDA's allocator counts it; on a CPU, the storages that torch creates and frees are counted.
    """
    images = np.array(images[: 2 * BATCH], dtype=np.float32)
    peaks: list[int] = []
    seconds: list[list[float]] = [[] for _ in networks]
    for network in networks:
        with hardware.running(network):
            gpu = hardware.device == "gpu"
            peaks.append(_peak_memory(partial(predict_slices, network, images[:BATCH], BATCH), network, gpu))
    for _ in range(ROUNDS if rounds is None else rounds):
        for network, spent in zip(networks, seconds, strict=True):
            with hardware.running(network):
                predict_slices(network, images[:1], BATCH)
                begin = time.perf_counter()
                predict_slices(network, images, BATCH)
                spent.append(time.perf_counter() - begin)
    return [
        {
            "milliseconds_per_slice": round(1000 * min(spent) / len(images), 3),
            "peak_memory_mib": round(peak / 2**20, 1),
            "device": hardware.device,
        }
        for peak, spent in zip(peaks, seconds, strict=True)
    ]


def _peak_memory(work: Callable[[], Any], network: nn.Module, gpu: bool) -> int:
    """Return the peak number of bytes in memory at the same time while `work` runs."""
    if gpu:
        work()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated()
    weights = sum(part.nbytes for part in (*network.parameters(), *network.buffers()))
    with _LiveTensors() as tensors:
        work()
    return weights + tensors.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the storages that operations create and that are not yet freed, and keeps the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(tensor) for tensor in tree_flatten((args, kwargs))[0] if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and _address(tensor) not in given and _address(tensor) not in self._alive:
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        self._alive[address] = storage.nbytes()
        weakref.finalize(storage, self._alive.pop, address, None)
        self.peak = max(self.peak, sum(self._alive.values()))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
