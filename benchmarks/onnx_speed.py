"""Speed of ONNX Runtime and torch on the same network, full and truncated, as `vitrim predict` runs them.

    python benchmarks/onnx_speed.py [--network transunet] [--depths 12 3] [--batch 8] [--rounds 3] [--size base]

The engines take turns, so that other work on the machine slows both. The best round counts. The weights are random,
which does not change the time. Ratios are relative to torch at the first depth.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import vitrim
from vitrim.commands.export import export
from vitrim.inference.engine import Engine
from vitrim.inference.onnx_engine import OnnxEngine
from vitrim.inference.torch_engine import TorchEngine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="transunet", choices=["transunet", "cats2d", "unetr2d"])
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 3])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="base")
    options = parser.parse_args()
    torch.manual_seed(0)
    full = vitrim.create_model(options.network, num_classes=9, in_chans=1, size=options.size, depth=options.depths[0])
    engines: dict[tuple[str, int], Engine] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for depth in options.depths:
            folder = Path(temporary) / str(depth)
            vitrim.save_model(full.truncated(depth), folder)
            check = export(folder, folder.with_suffix(".onnx"))["random slices"]
            print(f"{depth} blocks: exported, logits within {check.error:.1e} of torch's", flush=True)
            engines["torch", depth] = TorchEngine.open(folder)
            engines["onnx", depth] = OnnxEngine.open(folder.with_suffix(".onnx"))
    images = np.random.default_rng(0).standard_normal((options.batch, *full.example.shape[1:]), np.float32)
    seconds = {key: float("inf") for key in engines}
    for turn in range(options.rounds + 1):
        for key, engine in engines.items():
            begin = time.perf_counter()
            engine(images)
            if turn:
                seconds[key] = min(seconds[key], time.perf_counter() - begin)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{torch.get_num_threads()} threads, load {load}; batch {options.batch}, best of {options.rounds} rounds")
    for (name, depth), spent in seconds.items():
        ratio = seconds["torch", options.depths[0]] / spent
        print(f"{name:<6} {depth:>3} blocks {spent / options.batch:>8.3f} s/slice {ratio:>6.2f} x")


if __name__ == "__main__":
    main()
