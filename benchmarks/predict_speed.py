"""Speed of `vitrim predict` compared with the test code of the public TransUNet release, with the same weights.

    python benchmarks/predict_speed.py [--slices 24] [--rounds 2] [--batch 8] [--steps 200] [--network FOLDER] [--onnx]

Method of the release (its `utils.test_single_volume`): one slice at a time in float32; each slice is scaled to
224 x 224 by `scipy.ndimage.zoom` with order 3, and its labels are scaled back with order 0; weights are standardised
again in every call; attention has no fused kernel. Method of vitrim: all that `vitrim predict` does between reading a
file and writing one. The volume is an abdomen phantom of 512 x 512 x SLICES voxels. The networks have 12 and 3 blocks.

A random network gives noise as labels, and two methods of scaling never agree on noise. So the decoder is trained
first, for STEPS steps on other phantoms. The stem and the transformer stay random, which costs as much time as trained
weights. `--network FOLDER` stores the weights there, or uses those in it. The benchmark prints for each method the Dice
with the labels of the phantom and the Dice with the labels of the release (both see the same pixels, with
`scaling: zoom`). It also prints the Dice between vitrim and the plain network on the same scaled slices. `int8` is
`vitrim predict --precision int8`, if the processor has instructions for it. `onnx int8` is the file of
`vitrim export --int8`.

The methods take turns, slab by slab, so that other work on the machine slows all of them. The best round of each method
counts. Peak memory is that of a separate process. The matrix rate of this machine is measured between the slabs.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from scipy import ndimage

import vitrim
from vitrim.commands.export import export
from vitrim.config.schema import DataConfig, PhantomConfig
from vitrim.data.cases import Volume
from vitrim.data.phantoms.make import draw_phantom
from vitrim.data.preprocessing import Preprocessing, restore
from vitrim.evaluation.segment import segment_slices
from vitrim.hardware import has_fast_bf16
from vitrim.inference.engine import Engine
from vitrim.inference.onnx_engine import OnnxEngine
from vitrim.inference.torch_engine import TorchEngine
from vitrim.models.describe import count_macs
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.models.transunet import TransUNet

SPACING = (0.75, 0.75, 5.0)
DATA = DataConfig(image_size=224, axis=2, clip=(-125, 275), normalize="unit", scaling="zoom")
NOISE = 0.5
"""Factor on the default noise of the phantom; gives 9 Hounsfield units."""

CLASSES = 9
SLAB = 8
"""Slices that one method computes before the next method has its turn."""

Way = Callable[[np.ndarray], np.ndarray]
"""Takes a volume (X, Y, Z) in Hounsfield units and returns its labels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--network", type=Path)
    parser.add_argument("--onnx", action="store_true", help="also measure `vitrim export --int8`")
    parser.add_argument("--memory-of", choices=["release", "vitrim", "int8"], help=argparse.SUPPRESS)
    parser.add_argument("--depth", type=int, default=12, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.network or Path(temporary) / "network"
        if options.memory_of:
            print(peak_memory(options.memory_of, folder, options))
            return
        if not folder.exists():
            train_decoder(folder, options.steps)
        compare(folder, options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    image, reference = volume(0, options.slices)
    full = vitrim.load_model(folder)
    networks = {12: full, 3: full.truncated(3)}
    macs = {depth: count_macs(network) for depth, network in networks.items()}
    ways: dict[tuple[str, int], Way] = {}
    for depth, network in networks.items():
        ways["release", depth] = release_way(network)
        ways["vitrim", depth] = vitrim_way(torch_engine(network), options.batch)
        ways["int8", depth] = vitrim_way(torch_engine(network, "int8"), options.batch)
        if options.onnx:
            ways["onnx int8", depth] = vitrim_way(onnx_engine(network, image), options.batch)
    seconds = {key: float("inf") for key in ways}
    labels: dict[tuple[str, int], np.ndarray] = {}
    rate = 0.0
    for _ in range(options.rounds):
        spent = dict.fromkeys(ways, 0.0)
        parts: dict[tuple[str, int], list[np.ndarray]] = {key: [] for key in ways}
        for start in range(0, image.shape[2], SLAB):
            rate = max(rate, matrix_rate())
            for key, way in ways.items():
                begin = time.perf_counter()
                parts[key].append(way(image[:, :, start : start + SLAB]))
                spent[key] += time.perf_counter() - begin
        seconds = {key: min(seconds[key], spent[key]) for key in ways}
        labels = {key: np.concatenate(part, axis=2) for key, part in parts.items()}
    memory = {key: memory_in_a_process(folder, options, *key) for key in ways if key[0] != "onnx int8"}

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{torch.get_num_threads()} threads, load {load}; matrix product {rate / 1e9:.0f} GFLOP/s in float32")
    print(f"volume 512 x 512 x {options.slices}, batch {options.batch}, best of {options.rounds} rounds")
    header = f"{'way':<9} {'blocks':>6} {'s/slice':>8} {'over release, 12':>17} {'of rate':>8} {'peak MiB':>9}"
    print(f"{header} {'Dice, phantom':>14} {'Dice, release':>14}")
    for (way, depth), spent_seconds in seconds.items():
        each = spent_seconds / options.slices
        share = 2 * macs[depth] / each / rate
        ratio = seconds["release", 12] / spent_seconds
        peak = f"{memory[way, depth]:.0f}" if (way, depth) in memory else "-"
        right, same = (dice(labels[way, depth], other)[0] for other in (reference, labels["release", depth]))
        print(
            f"{way:<9} {depth:>6} {each:>8.3f} {ratio:>17.2f} {share:>8.0%} {peak:>9} {right:>14.3f} {same:>14.4f}",
            flush=True,
        )
    for depth, network in networks.items():
        for way in ("vitrim", "int8"):
            if (way, depth) in ways:
                mean, low = dice(*computed(network, way, image, options.batch))
                print(
                    f"{way}, {depth} blocks, the same scaled slices to both: Dice {mean:.5f} (lowest class {low:.5f})"
                )


def computed(network: Network, way: str, image: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the slices of one slab, by the plain network (one slice at a time) and by vitrim (in batches).

    Both get the same slices, scaled by vitrim.
    """
    part = Volume(image[None, :, :, :SLAB], None, np.diag([*SPACING, 1]), SPACING)
    images = Preprocessing.from_config(DATA).apply(part).images
    with torch.no_grad():
        plain = [network(torch.from_numpy(one)[None].float()).argmax(1).numpy() for one in images]
    return np.concatenate(plain), segment_slices(engine_of(way, network), images, batch)[0]


def release_way(network: Network) -> Way:
    """The test method of the public release: one slice at a time."""
    plain = copy.deepcopy(network).eval()
    for block in plain.blocks:
        block.attn.fused_attn = False

    def segment(part: np.ndarray) -> np.ndarray:
        image = (part.clip(-125, 275) + 125) / 400
        labels = np.zeros(part.shape, np.uint8)
        for n in range(part.shape[2]):
            with torch.no_grad():
                logits = plain(torch.from_numpy(zoom_in(image[:, :, n]))[None, None].float())
                out = torch.argmax(torch.softmax(logits, dim=1), dim=1)[0].numpy()
            labels[:, :, n] = ndimage.zoom(out, (part.shape[0] / 224, part.shape[1] / 224), order=0)
        return labels

    return segment


def torch_engine(network: Network, precision: str = "auto") -> TorchEngine:
    """The engine of `vitrim predict` for this network."""
    if precision == "auto":
        precision = "bf16" if has_fast_bf16("cpu") else "float32"
    return TorchEngine(fold_for_inference(network), "", None, "cpu", precision)


def engine_of(way: str, network: Network) -> TorchEngine:
    """The torch engine of one of vitrim's methods."""
    return torch_engine(network, "int8" if way == "int8" else "auto")


def onnx_engine(network: Network, image: np.ndarray) -> OnnxEngine:
    """The ONNX engine of a file written as by `vitrim export --int8` and checked on `image`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        vitrim.save_model(network, folder / "network")
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.diag([*SPACING, 1])), folder / "image.nii")
        check = export(folder / "network", folder / "int8.onnx", study=DATA, data=folder / "image.nii", int8=True)[
            "real slices"
        ]
        print(f"onnx int8, {network.depth} blocks: {check.agreement:.3%} of labels as in float32", flush=True)
        return OnnxEngine.open(folder / "int8.onnx")


def vitrim_way(engine: Engine, batch: int) -> Way:
    """The method of `vitrim predict`, with arrays in place of files."""
    preparation = Preprocessing.from_config(DATA)

    def segment(part: np.ndarray) -> np.ndarray:
        prepared = preparation.apply(Volume(part[None], None, np.diag([*SPACING, 1]), SPACING))
        labels, _ = segment_slices(engine, prepared.images, batch)
        return restore(labels, prepared.record)

    return segment


def volume(number: int, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """A phantom (512, 512, slices) and its labels."""
    config = PhantomConfig(kind="abdomen", cases=2, noise=NOISE)
    drawing = draw_phantom(config, number, (512, 512, slices), SPACING)
    return drawing.image, drawing.label


def train_decoder(folder: Path, steps: int) -> None:
    """Train the decoder of a network on the organs of the phantom and save the network in `folder`.

    The decoder gets features after 12 blocks and after 3 blocks in turn, so that it works at both depths. The features
    are computed once, because the stem and the transformer are not trained.
    """
    torch.manual_seed(0)
    network = vitrim.create_model("transunet", num_classes=CLASSES, in_chans=1, stem="release").eval()
    assert isinstance(network, TransUNet)
    images, labels = training_slices()
    skips, tokens = features(network, images)
    del images
    learning = [network.bottleneck, network.decoder, network.head]
    optimizer = torch.optim.AdamW([p for part in learning for p in part.parameters()], lr=2e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng(0)
    for step in range(steps):
        chosen = rng.permutation(len(labels))[:4]
        x = network.bottleneck(tokens[step % 2][chosen])
        for convs, skip in zip(network.decoder, (*skips, None), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = convs(x if skip is None else torch.cat((x, skip[chosen]), dim=1))
        value = loss(network.head(x), labels[chosen][:, None])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            print(f"training the decoder: step {step + 1} of {steps}, loss {value.item():.3f}", flush=True)
    vitrim.save_model(network.eval().to(memory_format=torch.contiguous_format), folder)  # type: ignore[call-overload]


def training_slices(cases: int = 4, slices: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices of other phantoms (n, 1, 224, 224), scaled as by the release, and their labels (n, 224, 224)."""
    preparation = Preprocessing.from_config(DATA)
    images, labels = [], []
    for number in range(1, cases + 1):
        image, label = volume(number, slices)
        prepared = preparation.apply(Volume(image[None], label, np.diag([*SPACING, 1]), SPACING))
        assert prepared.labels is not None
        images.append(prepared.images)
        labels.append(prepared.labels)
    return torch.from_numpy(np.concatenate(images)).float(), torch.from_numpy(np.concatenate(labels))


def features(network: TransUNet, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Features of all images: the skips of the stem at 1/8, 1/4 and 1/2, and the tokens after 12 and after 3 blocks."""
    ends = [network.vit, network.truncated(3).vit]
    found: list[list[torch.Tensor]] = []
    with torch.inference_mode():
        for batch in images.split(8):
            half, quarter, eighth, sixteenth = network.stem(batch.expand(-1, 3, -1, -1))
            found.append([eighth, quarter, half, *(vit(sixteenth, ())[0] for vit in ends)])
    joined = [torch.cat(parts).clone() for parts in zip(*found, strict=True)]
    return joined[:3], joined[3:]


def zoom_in(image: np.ndarray) -> np.ndarray:
    """Scale a slice (H, W) to 224 x 224 as the release does."""
    return ndimage.zoom(image, (224 / image.shape[0], 224 / image.shape[1]), order=3)


def dice(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean and lowest Dice over the structures that occur in at least one of the two label maps."""
    values = []
    for label in range(1, CLASSES):
        a, b = one == label, other == label
        if a.any() or b.any():
            values.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(values)), float(np.min(values))


def matrix_rate() -> float:
    """FLOP/s of the product of two 2048 x 2048 matrices in float32."""
    a = torch.randn(2048, 2048)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - begin)
    return 2 * 2048**3 / min(seconds)


def memory_in_a_process(folder: Path, options: argparse.Namespace, way: str, depth: int) -> float:
    """Peak memory in MiB of a separate process that runs one method over one slab."""
    command = [sys.executable, __file__, "--network", folder, "--memory-of", way, "--depth", depth]
    command += ["--slices", SLAB, "--batch", options.batch]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_memory(way: str, folder: Path, options: argparse.Namespace) -> float:
    """Peak memory of this process in MiB while it runs one method over random intensities."""
    image = np.random.default_rng(0).normal(0, 100, (512, 512, options.slices)).astype(np.float32)
    network = vitrim.load_model(folder)
    if options.depth != network.depth:
        network = network.truncated(options.depth)
    run = release_way(network) if way == "release" else vitrim_way(engine_of(way, network), options.batch)
    del network
    run(image)
    status = Path("/proc/self/status").read_text()  # getrusage would begin with the peak of the parent process
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


if __name__ == "__main__":
    main()
