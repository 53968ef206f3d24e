"""Everything that is measured on a GPU, in one call: training, prediction, attention.

    python benchmarks/gpu.py gpu.json [--minutes 9] [--only training prediction] [--tiny]

Each measurement is written to the JSON file when it is done. The same call leaves out what the file already holds, so
that a card that is at hand for minutes is used from the first. No measurement begins after `--minutes`.

- `card`: name, driver, and its rates: matrix product (bf16, float32, tf32), copy on the card, copy from pinned memory.
- `training`: steps a second of TransUNet at ViT-B size, 224 × 224, bf16, by `vitrim.training.loop.train_network` with
  loader, loss and optimiser, beside a plain PyTorch loop over the same network with a batch that lies on the card. The
  share of the matrix rate counts the operations of forward and backward pass.
- `forms`: the plain loop with channels first, with `torch.compile`, and as a CUDA graph.
- `prediction`: slices a second of `vitrim.predict`, from compressed NIfTI to compressed NIfTI, by readers, and how busy
  the card is (sampled 20 times a second).
- `attention`: time of `profile_attention` in bf16 over the time of the forward pass.

`--tiny` measures micro networks for a moment, on a CPU too: a test of this script.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks import one_hot
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

import vitrim
from vitrim.attention.profiling import profile_attention
from vitrim.config.schema import DataConfig, TrainConfig
from vitrim.data.recipe import Recipe
from vitrim.hardware import float32_products
from vitrim.training.loop import train_network

CLASSES = 4
SPACING = (1.0, 1.0, 1.5)


class Settings:
    """Sizes and times of the measurements: full on a GPU, tiny for a test."""

    def __init__(self, tiny: bool) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tiny = tiny
        self.size = "micro" if tiny else "base"
        self.width = 0.125 if tiny else 1.0
        self.image = 64 if tiny else 224
        self.depths = (2, 1) if tiny else (12, 3, 1)
        self.batches = (2,) if tiny else (8, 24)
        self.seconds = 0.2 if tiny else 2.5
        self.rate_size = 256 if tiny else 8192
        self.volume = (48, 48, 6) if tiny else (256, 256, 128)
        self.cases = 3 if tiny else 64
        self.readers = (2,) if tiny else (1, 8)
        self._volumes: tempfile.TemporaryDirectory[str] | None = None

    def network(self, depth: int) -> nn.Module:
        """TransUNet with `depth` blocks."""
        return vitrim.truncate(self.full, depth)

    @cached_property
    def full(self) -> nn.Module:
        """TransUNet with all blocks."""
        torch.manual_seed(0)
        return vitrim.create_model(
            "transunet", num_classes=CLASSES, in_chans=1, size=self.size, width=self.width, image_size=self.image,
            depth=max(self.depths),
        )  # fmt: skip

    def volumes(self) -> Path:
        """The folder of volumes to predict; written once."""
        if self._volumes is None:
            self._volumes = tempfile.TemporaryDirectory()
            write_volumes(self, Path(self._volumes.name) / "images")
        return Path(self._volumes.name) / "images"

    def autocast(self) -> Any:
        """bf16 for products."""
        return torch.autocast(self.device, torch.bfloat16)

    def wait(self) -> None:
        """Wait for the card."""
        if self.device == "cuda":
            torch.cuda.synchronize()


class Noise(Dataset):
    """`count` slices that lie in memory."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.images, self.labels = torch.randn(16, 1, size, size), torch.randint(CLASSES, (16, size, size))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {"image": self.images[item % 16], "label": self.labels[item % 16]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    settings, end = Settings(options.tiny), time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, measure in measurements(settings).items():
        if name in found or (options.only and name.split(" ")[0] not in options.only):
            continue
        if time.monotonic() > end:
            print(f"out of time before: {name}")
            break
        begin = time.monotonic()
        try:
            found[name] = measure()
        except Exception as error:  # the other measurements go on
            print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        temporary = options.out.with_suffix(".part")
        temporary.write_text(json.dumps(found, indent=1))
        temporary.replace(options.out)
        print(f"{name} ({time.monotonic() - begin:.0f} s): {json.dumps(found[name])}", flush=True)


def measurements(settings: Settings) -> dict[str, Callable[[], Any]]:
    """All measurements by name, the most important first."""
    every: dict[str, Callable[[], Any]] = {"card": lambda: card(settings)}
    for batch in settings.batches:
        for depth in settings.depths:
            every[f"training {depth} blocks, batch {batch}"] = lambda d=depth, b=batch: training(settings, d, b)
    for depth in settings.depths[-2::-1]:
        for readers in settings.readers:
            every[f"prediction {depth} blocks, {readers} readers"] = lambda d=depth, r=readers: prediction(
                settings, d, r
            )
    for batch in (8, 64):
        every[f"attention batch {batch}"] = lambda b=batch: attention(settings, b)
    for batch in settings.batches:
        every[f"forms batch {batch}"] = lambda b=batch: forms(settings, settings.depths[0], b)
    return every


def card(settings: Settings) -> dict[str, Any]:
    """Rates of the card in TFLOP/s and GB/s."""
    size, device = settings.rate_size, settings.device

    def rate(kind: torch.dtype, precision: str) -> float:
        a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        with float32_products(precision):
            return 2 * size**3 / fastest(settings, lambda: a @ b) / 1e12

    block = torch.empty(2**28 if device == "cuda" else 2**20, dtype=torch.uint8, device=device).random_()
    there = torch.empty_like(block)
    found = {
        "name": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "bf16 TFLOP/s": rate(torch.bfloat16, "bf16"),
        "float32 TFLOP/s": rate(torch.float32, "float32"),
        "copy on the card GB/s": 2 * len(block) / fastest(settings, lambda: there.copy_(block)) / 1e9,
    }
    if device == "cuda":
        pinned = torch.empty_like(block, device="cpu").pin_memory()
        found["tf32 TFLOP/s"] = rate(torch.float32, "tf32")
        copy = fastest(settings, lambda: there.copy_(pinned, non_blocking=True))
        found["copy from pinned memory GB/s"] = len(block) / copy / 1e9
    return found


def training(settings: Settings, depth: int, batch: int) -> dict[str, float]:
    """Steps a second by vitrim and by a plain loop, in turns."""
    step, operations = plain_step(settings, depth, batch)
    plain = 1 / median_time(settings, step)
    seconds, writing = vitrim_step(settings, depth, batch)
    ours = 1 / seconds
    again = 1 / median_time(settings, step)
    return {
        "vitrim steps/s": ours,
        "plain steps/s": max(plain, again),
        "vitrim over plain": ours / max(plain, again),
        "TFLOP a step": operations / 1e12,
        "vitrim TFLOP/s": ours * operations / 1e12,
        "seconds to write the state": writing,
    }


def vitrim_step(settings: Settings, depth: int, batch: int) -> tuple[float, float]:
    """Mean seconds of a step of `train_network` from the tenth to the last, and the seconds of writing a state.

    A state is written after the first step and after the last one (not timed), between them about once a minute.
    """
    guess = 30 if settings.tiny else 200
    moments: list[float] = []
    config = TrainConfig(
        steps=guess, batch_size=batch, precision="bf16-mixed", device="gpu" if settings.device == "cuda" else "cpu"
    )
    with tempfile.TemporaryDirectory() as folder:
        train_network(
            settings.network(depth),
            Noise(batch * guess, settings.image),
            config,
            0,
            state=Path(folder) / "state",
            watch=lambda moment: moments.append(time.perf_counter()),
        )
    times = np.diff(moments)
    usual = times[9:][times[9:] < 10 * np.median(times)]  # the others wrote a state
    return float(usual.mean()), float(times[:3].max())


def plain_step(settings: Settings, depth: int, batch: int) -> tuple[Callable[[], None], int]:
    """A step of a plain PyTorch loop, and the number of floating-point operations of forward and backward pass."""
    network = settings.network(depth).to(settings.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    criterion = DiceCELoss(softmax=True, batch=True, lambda_dice=0.5, lambda_ce=0.5)
    data = Noise(16, settings.image)
    image = data.images.repeat(2, 1, 1, 1)[:batch].to(settings.device).contiguous(memory_format=torch.channels_last)
    target = one_hot(data.labels.repeat(2, 1, 1)[:batch, None], CLASSES).to(settings.device)

    def step() -> None:
        with settings.autocast():
            logits = network(image)
        loss = criterion(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops()


def forms(settings: Settings, depth: int, batch: int) -> dict[str, float]:
    """Steps a second of forward and backward pass of the full network in several forms."""
    data = Noise(16, settings.image)
    image = data.images.repeat(2, 1, 1, 1)[:batch].to(settings.device)
    target = one_hot(data.labels.repeat(2, 1, 1)[:batch, None], CLASSES).to(settings.device)

    def made(channels_last: bool = True) -> tuple[nn.Module, Tensor]:
        memory = torch.channels_last if channels_last else torch.contiguous_format
        network = settings.network(depth).to(settings.device, memory_format=memory).train()
        return network, image.contiguous(memory_format=memory)

    def work(network: nn.Module, images: Tensor) -> None:
        with settings.autocast():
            logits = network(images)
        loss = -(target * logits.float().log_softmax(1)).mean()
        loss.backward()

    found = {}
    network, images = made()
    found["channels last"] = 1 / median_time(settings, lambda: work(network, images))
    network, images = made(channels_last=False)
    found["channels first"] = 1 / median_time(settings, lambda: work(network, images))
    if settings.device == "cuda":
        network, images = made()
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                work(network, images)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            work(network, images)
        found["CUDA graph"] = 1 / median_time(settings, graph.replay)
        del graph
        network, images = made()
        compiled = torch.compile(network)
        begin = time.perf_counter()
        work(compiled, images)
        settings.wait()
        found["compile seconds"] = time.perf_counter() - begin
        found["compiled"] = 1 / median_time(settings, lambda: work(compiled, images))
    return found


def prediction(settings: Settings, depth: int, readers: int) -> dict[str, float]:
    """Slices a second of `vitrim.predict` over compressed volumes, and the share of time in which the card computed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = settings.network(depth).eval()
        vitrim.save_model(network, folder / "network")
        data = DataConfig(image_size=settings.image, axis=2, classes=[f"class {n}" for n in range(1, CLASSES)])
        recipe = Recipe(data, {n: f"class {n}" for n in range(CLASSES)})
        (folder / "network" / "preparation.json").write_text(json.dumps(recipe.dump()))
        images = settings.volumes()
        warm = images / "case_000.nii.gz"
        vitrim.predict(folder / "network", warm, folder / "warm.nii.gz")
        with Busy(settings.device == "cuda") as busy:
            begin = time.perf_counter()
            vitrim.predict(folder / "network", images, folder / "out", readers=readers)
            seconds = time.perf_counter() - begin
    slices = settings.cases * settings.volume[2]
    # Opening the network is part of the call, as it is for a user.
    return {"slices/s": slices / seconds, "slices": slices, "seconds": seconds, "card busy": busy.share}


def write_volumes(settings: Settings, folder: Path) -> None:
    """Compressed volumes of 16-bit integers: a smooth body with noise, as MRI is."""
    folder.mkdir()
    x, y, z = (np.linspace(-1, 1, n) for n in settings.volume)
    body = 800 * np.exp(-4 * (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2))
    for number in range(settings.cases):
        path = folder / f"case_{number:03d}.nii.gz"
        if number >= 4:
            path.write_bytes((folder / f"case_{number % 4:03d}.nii.gz").read_bytes())
            continue
        noise = np.random.default_rng(number).normal(0, 15, settings.volume)
        nib.save(nib.Nifti1Image((body + noise).astype(np.int16), np.diag([*SPACING, 1])), path)


class Busy:
    """Samples in a thread whether the card computes; `share` is the mean."""

    def __init__(self, on: bool) -> None:
        self.on, self.share = on, float("nan")
        self.over, self.samples = threading.Event(), []

    def __enter__(self) -> Busy:
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        if self.samples:
            self.share = statistics.mean(self.samples) / 100

    def _sample(self) -> None:
        while self.on and not self.over.wait(0.05):
            self.samples.append(torch.cuda.utilization())


def attention(settings: Settings, batch: int) -> dict[str, float]:
    """Time of `profile_attention` over the time of the forward passes, both over the same four batches, in turns."""
    network = settings.network(settings.depths[0]).to(settings.device).eval()
    images = torch.randn(4 * batch, 1, settings.image, settings.image, device=settings.device)
    ratios: dict[str, list[float]] = {"globality": [], "all measures": []}

    def forward() -> None:
        for part in images.split(batch):
            network(part)

    def seconds(work: Callable[[], Any], times: int = 1 if settings.tiny else 3) -> float:
        settings.wait()
        begin = time.perf_counter()
        for _ in range(times):
            work()
        settings.wait()
        return (time.perf_counter() - begin) / times

    with torch.no_grad(), settings.autocast():
        for number in range(2 if settings.tiny else 8):
            plain = seconds(forward)
            some = seconds(lambda: profile_attention(network, images, measures=["globality"], batch_size=batch))
            every = seconds(lambda: profile_attention(network, images, batch_size=batch))
            if number:
                ratios["globality"].append(some / plain)
                ratios["all measures"].append(every / plain)
    return {**{name: statistics.median(values) for name, values in ratios.items()}, "forward ms": 1000 * plain / 4}


def fastest(settings: Settings, work: Callable[[], Any], repetitions: int = 10) -> float:
    """Seconds of the fastest of some repetitions."""
    work()
    seconds = []
    for _ in range(repetitions):
        settings.wait()
        begin = time.perf_counter()
        work()
        settings.wait()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def median_time(settings: Settings, step: Callable[[], Any]) -> float:
    """Seconds of a step that is repeated without waiting; the median of five rounds of `settings.seconds` / 5."""
    for _ in range(3):
        step()
    settings.wait()
    begin = time.perf_counter()
    step()
    settings.wait()
    count = max(1, int(settings.seconds / 5 / (time.perf_counter() - begin)))
    rounds = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(count):
            step()
        settings.wait()
        rounds.append((time.perf_counter() - begin) / count)
    return statistics.median(rounds)


if __name__ == "__main__":
    main()
