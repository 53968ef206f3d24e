"""Cost of measuring attention: time compared with the plain forward pass, and memory by number of images.

    python benchmarks/attention_cost.py time      # ViT-B, batch 8
    python benchmarks/attention_cost.py memory    # peak at 64 and at 1024 images

`time` runs every variant once per round. For each variant it prints the median over rounds of the ratio to the plain
forward pass of the same round, so that other work on the machine affects all variants alike. It gives both wall-clock
time and CPU time; CPU time counts this process alone. `AttentionExtract` is timm's own tool. It keeps the maps and
needs a model that was built without fused attention.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import timm
import torch
from timm.layers import set_fused_attn
from timm.utils import AttentionExtract
from torch import Tensor, nn

from vitrim.attention.measures import MEASURES
from vitrim.attention.profiling import profile_attention

TARGETS = {"globality": 1.10, "all but proximity correlation": 1.15}


def unfused(name: str, depth: int | None) -> nn.Module:
    """Build a timm model without fused attention, as `AttentionExtract` needs it."""
    set_fused_attn(False)
    try:
        return timm.create_model(name, **({"depth": depth} if depth else {})).eval()
    finally:
        set_fused_attn(True)


def compare_time(arguments: argparse.Namespace) -> None:
    """Print the seconds and the ratio to the plain forward pass of each variant."""
    torch.manual_seed(0)
    options = {"depth": arguments.depth} if arguments.depth else {}
    model = timm.create_model(arguments.model, **options).eval()
    written = unfused(arguments.model, arguments.depth)
    extract = AttentionExtract(written, method="fx")
    device = torch.device(arguments.device)
    images = torch.randn(arguments.batch, 3, 224, 224, device=device)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    for network in (model, written, extract):
        network.to(device)
    measures = list(MEASURES)
    without = [name for name in measures if name != "proximity_correlation"]

    @torch.no_grad()
    def run(network: nn.Module) -> None:
        network(images)

    def look(names: list[str]) -> None:
        profile_attention(model, images, measures=names, batch_size=arguments.batch)

    variants: dict[str, Callable[[], None]] = {
        "plain forward": lambda: run(model),
        "globality": lambda: look(["globality"]),
        "all but proximity correlation": lambda: look(without),
        "all (up to 196 queries for proximity)": lambda: look(measures),
        "plain forward, attention unfused": lambda: run(written),
        "AttentionExtract, keeping the maps": lambda: run(extract),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    worked: dict[str, list[float]] = {name: [] for name in variants}
    with torch.autocast(device.type, dtype=dtype, enabled=arguments.bf16):
        for round_number in range(arguments.rounds + 1):
            for name, variant in variants.items():
                start, begun = time.perf_counter(), time.process_time()
                variant()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if round_number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
                    worked[name].append(time.process_time() - begun)
    print(f"{arguments.model}, batch {arguments.batch}, {'bf16' if arguments.bf16 else 'fp32'}, {device}, "
          f"{torch.get_num_threads()} threads, {arguments.rounds} rounds")  # fmt: skip
    print(f"{'':36s} {'wall s':>8s} {'ratio':>8s} {'CPU s':>12s} {'ratio':>8s}")
    for name in variants:
        target = f"   (at most {TARGETS[name]})" if name in TARGETS else ""
        print(
            f"{name:36s} {statistics.median(seconds[name]):8.3f} {ratio(seconds, name):8.3f} "
            f"{statistics.median(worked[name]):12.3f} {ratio(worked, name):8.3f}{target}"
        )


def ratio(times: dict[str, list[float]], name: str) -> float:
    """Median over rounds of this variant's time divided by that of the plain forward pass in the same round."""
    return statistics.median(own / plain for own, plain in zip(times[name], times["plain forward"], strict=True))


def stream(count: int, batch: int) -> Iterator[tuple[str, Tensor, tuple[float, float]]]:
    """Generate `count` random images on demand. Each case is one batch and has its own spacing."""
    for case in range(count // batch):
        generator = torch.Generator().manual_seed(case)
        yield str(case), torch.randn(batch, 3, 224, 224, generator=generator), (1.0, 1.0 + case / count)


def peak_of(arguments: argparse.Namespace) -> None:
    """Run one variant and print the peak memory of this process in MiB. Run it in a separate process."""
    import resource

    if arguments.kind == "extract":
        extract = AttentionExtract(unfused(arguments.model, arguments.depth), method="fx")
        kept = []
        with torch.no_grad():
            for _, images, _ in stream(arguments.images, arguments.batch):
                kept.append(extract(images))
    else:
        model = timm.create_model(arguments.model, **({"depth": arguments.depth} if arguments.depth else {})).eval()
        if arguments.kind == "plain":
            with torch.no_grad():
                for _, images, _ in stream(arguments.images, arguments.batch):
                    model(images)
        else:
            profile_attention(model, stream(arguments.images, arguments.batch), batch_size=arguments.batch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def compare_memory(arguments: argparse.Namespace) -> None:
    """Print the peak memory of each variant; each variant runs in a separate process."""
    print(f"{arguments.model}, batch {arguments.batch}: peak memory of the process (MiB)")
    for kind, count in (("plain", 64), ("profile", 64), ("profile", 1024), ("extract", 64), ("extract", 128)):
        command = [sys.executable, __file__, "peak", "--kind", kind, "--images", str(count)]
        command += ["--model", arguments.model, "--batch", str(arguments.batch)]
        command += ["--depth", str(arguments.depth)] if arguments.depth else []
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        title = {"plain": "plain forward", "profile": "profile, all measures", "extract": "AttentionExtract"}[kind]
        print(f"{title:24s} {count:5d} images {peak:8.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "memory", "peak"])
    parser.add_argument("--model", help="timm name; default: ViT-B for time, ViT-Ti for memory")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16, as in training")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kind", choices=["plain", "profile", "extract"], default="profile")
    parser.add_argument("--images", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    size = "base" if arguments.what == "time" else "tiny"
    arguments.model = arguments.model or f"vit_{size}_patch16_224"
    {"time": compare_time, "memory": compare_memory, "peak": peak_of}[arguments.what](arguments)


if __name__ == "__main__":
    main()
