"""Cost of the exchange curve: time of all its runs over the same slices, as a multiple of one forward pass.

    python benchmarks/exchange_cost.py [--network vit|transunet|unetr2d] [--slices 20]

`vit` is timm's ViT-B/16 with 12 blocks at 224 × 224. The curve switches exchange off after block 0, 1, … 11; what lies
before the first changed block is computed once. Both are timed in turns in one process, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import platform
import time

import timm
import torch

import vitrim
from vitrim.attention.replay import Intervention, run_interventions

BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="vit", choices=["vit", "transunet", "unetr2d"])
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.network == "vit":
        model = timm.create_model("vit_base_patch16_224").eval()
    else:
        model = vitrim.create_model(options.network, num_classes=9).eval()
    images = torch.randn(options.slices, 3, 224, 224)
    changes = [Intervention(tuple(range(k + 1, 13))) for k in range(12)]

    def forward() -> None:
        with torch.no_grad():
            for batch in images.split(BATCH):
                model(batch)

    def curve() -> None:
        for batch in images.split(BATCH):
            for _ in run_interventions(model, lambda batch=batch: model(batch), batch, changes):
                pass

    forward()
    seconds: dict[str, list[float]] = {"forward": [], "curve": []}
    for _ in range(options.repeats):
        for name, run in (("forward", forward), ("curve", curve)):
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    one, all_runs = min(seconds["forward"]), min(seconds["curve"])
    print(f"{options.network}, {options.slices} slices, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"one forward pass {one:.2f} s; exchange curve {all_runs:.2f} s: {all_runs / one:.2f} forward passes")


if __name__ == "__main__":
    main()
