"""Speed of the networks with vitrim's default settings, compared with plain PyTorch settings, in one process.

    python benchmarks/model_speed.py [--networks transunet ...] [--batch 8] [--rounds 5] [--compile] [--depth 12]

Plain: float32, contiguous memory, attention without a fused kernel. Default: bf16 if the hardware supports it, channels
last, fused attention. The two run in turn, so that other work on the machine slows both. The best round counts. The
benchmark also prints images per second and the speed as a share of the machine's own matrix product in the precision of
a training; on a GPU it also prints the peak memory of a training step.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from vitrim.hardware import Hardware
from vitrim.models.describe import count_macs
from vitrim.models.factory import NETWORKS, create_model

TRAINING_COST = 3
"""Multiply-adds of a training step divided by those of a forward pass."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--size", default="base")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--compile", action="store_true", help="also compile the default network")
    options = parser.parse_args()
    settings = Hardware.choose()
    device = settings.torch_device
    rate = matrix_rate(device)
    print(f"{device}, {torch.get_num_threads()} threads, precision {settings.precision}, batch {options.batch}; ")
    print(f"matrix product of this machine in that precision: {rate / 1e12:.2f} TFLOP/s")
    print(f"{'network':<10} {'what':<8} {'plain s':>9} {'default s':>9} {'ratio':>6} {'images/s':>9} {'of rate':>8}")
    for name in options.networks:
        compare(name, options, device, rate)


def compare(name: str, options: argparse.Namespace, device: str, rate: float) -> None:
    torch.manual_seed(0)
    plain = create_model(name, num_classes=9, depth=options.depth, size=options.size, image_size=options.image_size)
    default = copy.deepcopy(plain)
    for block in plain.blocks:
        block.attn.fused_attn = False
    images = torch.randn(options.batch, 3, options.image_size, options.image_size, device=device)
    labels = torch.randint(0, 9, (options.batch, options.image_size, options.image_size), device=device)
    plain.to(device)
    default.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    lasting = images.contiguous(memory_format=torch.channels_last)
    fast: nn.Module = torch.compile(default) if options.compile else default  # type: ignore[assignment]
    low = Hardware.choose().precision != "32-true"

    def forward(model: nn.Module, batch: torch.Tensor, bf16: bool) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), autocast(device, bf16):
                model.eval()(batch)

        return run

    def step(model: nn.Module, batch: torch.Tensor, bf16: bool) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, bf16):
                logits = model.train()(batch)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

        return run

    flops = 2 * count_macs(default) * options.batch
    for what, kind, cost in (("forward", forward, 1), ("training", step, TRAINING_COST)):
        slow, quick = best([kind(plain, images, False), kind(fast, lasting, low)], options.rounds, device)
        share = cost * flops / quick / rate
        per_second = options.batch / quick
        line = f"{name:<10} {what:<8} {slow:>9.3f} {quick:>9.3f} {slow / quick:>6.2f} {per_second:>9.1f} {share:>8.0%}"
        print(line, flush=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(fast, lasting, low)()
        print(f"{name:<10} peak memory of a training step: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def best(runs: list[Callable[[], None]], rounds: int, device: str) -> list[float]:
    """Seconds of the fastest round of each run. The runs take turns; the first round is a warm-up."""
    seconds = [float("inf")] * len(runs)
    for turn in range(rounds + 1):
        for index, run in enumerate(runs):
            begin = now(device)
            run()
            if turn:
                seconds[index] = min(seconds[index], now(device) - begin)
    return seconds


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def autocast(device: str, bf16: bool) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext()


def matrix_rate(device: str) -> float:
    """FLOP/s of a large matrix product, in the precision of a training on this machine."""
    low = Hardware.choose().precision != "32-true"
    n = 8192 if device == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if low else torch.float32)
    out = torch.empty_like(a)

    def product() -> None:
        torch.mm(a, a, out=out)

    return 2 * n**3 / best([product], 5, device)[0]


if __name__ == "__main__":
    main()
