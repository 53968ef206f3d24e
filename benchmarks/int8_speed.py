"""Speed of `--precision int8` beside float32 and beside the 8-bit integers of torchao, in one process, in turns.

    python benchmarks/int8_speed.py [--rounds 5] [--batch 8] [--compile]
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/int8_speed.py    # as on a processor without dot products of 8 bits

TransUNet of base size, folded, 224 x 224, with 12 and 3 blocks and random weights. torchao (pip install torchao) rounds
linear layers at run time (`Int8DynamicActivationInt8WeightConfig`); `--compile` also compiles its network. For each way
it prints the median over rounds of the time relative to float32 of the same round, and the largest difference of a
logit relative to the spread of the float32 logits.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vitrim
from vitrim.inference.int8 import largest_exact_weight, to_int8
from vitrim.models.folding import fold_for_inference


def ways_of(network: nn.Module, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """The network in float32, by vitrim in 8-bit integers, and by torchao."""
    folded = fold_for_inference(network)  # type: ignore[type-var]
    ways: dict[str, Callable[[Tensor], Tensor]] = {"float32": folded, "vitrim int8": to_int8(folded)}
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError:
        print("torchao is not installed: left out")
        return ways
    theirs = copy.deepcopy(folded)
    quantize_(theirs, Int8DynamicActivationInt8WeightConfig())
    ways["torchao"] = theirs
    if compiled:
        ways["torchao, compiled"] = torch.compile(copy.deepcopy(theirs))
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randn(options.batch, 1, 224, 224).contiguous(memory_format=torch.channels_last)
    full = vitrim.create_model("transunet", num_classes=9, in_chans=1).eval()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "none")
    print(f"{torch.get_num_threads()} threads, oneDNN limited to: {limit}, largest weight {largest_exact_weight()}")
    for depth in (12, 3):
        network = vitrim.truncate(full, depth).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ways = ways_of(network, options.compile)
        ratios: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, Tensor] = {}
        with torch.inference_mode():
            for way in ways.values():
                way(images)
            for _ in range(options.rounds):
                seconds = {}
                for name, way in ways.items():
                    begin = time.perf_counter()
                    found[name] = way(images)
                    seconds[name] = time.perf_counter() - begin
                for name in ways:
                    ratios[name].append(seconds["float32"] / seconds[name])
        spread = found["float32"].std()
        for name in ways:
            error = float((found[name] - found["float32"]).abs().max() / spread)
            ratio = statistics.median(ratios[name])
            print(
                f"{depth:>2} blocks  {name:<18} {ratio:5.2f} x float32   largest difference {error:.3f} of the spread"
            )


if __name__ == "__main__":
    main()
