"""Speed of the slice cache, compared with reading and preparing each case again, and with the need of a training.

    python benchmarks/cache_slices.py [--cases 4] [--size 224] [--batch 8] [--threads 2]

The benchmark writes abdomen phantoms of the size of a CT (512 × 512 in plane) and prepares them. It prints slices per
second, the loading time of a batch as a share of a TransUNet training step, and the memory of the process after one
case and after all cases.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from vitrim.config.schema import DataConfig, PhantomConfig
from vitrim.data.cache import SliceCache, SliceDataset, collate_slices
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=2, help="training steps to time; 0 for none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        _measure(Path(name), options)


def _measure(folder: Path, options: argparse.Namespace) -> None:
    config = DataConfig(image_size=options.size, clip=(-125, 275))
    phantom = PhantomConfig(kind="abdomen", cases=max(2, options.cases), shape=(512, 512, options.slices))
    case_set = read_cases(config, write_phantom(phantom, folder / "data"))
    preparation = Preprocessing.from_config(config)
    total = len(case_set.cases) * options.slices

    def prepare_all() -> None:
        for case in case_set.cases:
            preparation.apply(load_volume(case, case_set))

    each_time = total / _seconds(prepare_all)
    build = _seconds(lambda: SliceCache.build(case_set, case_set.ids, preparation, folder / "cache"))
    again = _seconds(lambda: SliceCache.build(case_set, case_set.ids, preparation, folder / "cache"))
    cache = SliceCache.build(case_set, case_set.ids, preparation, folder / "cache")
    dataset = SliceDataset(cache, cache.ids)
    loader = DataLoader(dataset, batch_size=options.batch, shuffle=True, drop_last=True, collate_fn=collate_slices)

    def serve() -> None:
        for _ in loader:
            pass

    serve()
    from_cache = len(loader) * options.batch / _seconds(serve)
    print(f"read and prepare each time  {each_time:9.1f} slices/s")
    print(f"from the cache, shuffled    {from_cache:9.1f} slices/s   {from_cache / each_time:.0f} times as fast")
    print(f"building the cache          {total / build:9.1f} slices/s;  opening the existing cache takes {again:.2f} s")
    _memory(cache)
    if options.steps:
        step = _training_step(options, case_set.num_classes)
        waiting = options.batch / from_cache
        print(
            f"TransUNet (ViT-B, 12 blocks) at {options.size}², batch {options.batch}: {step:.2f} s a training step,"
            f" {1000 * waiting:.1f} ms to load one: {100 * waiting / step:.2f} % (target: at most 10 %)"
        )


def _memory(cache: SliceCache) -> None:
    """Print the private memory of the process after one pass over one case, and after one pass over all cases."""
    held = []
    for ids in (cache.ids[:1], cache.ids):
        for batch in DataLoader(SliceDataset(cache, ids), batch_size=8, collate_fn=collate_slices):
            batch["image"].sum()
        held.append(_private_mib())
    print(f"private memory              {held[0]:.0f} MiB after 1 case, {held[1]:.0f} MiB after {len(cache.ids)}")


def _private_mib() -> float:
    """Memory that is not mapped from files, in MiB. Without /proc (not Linux): peak memory of the process."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["RssAnon"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _training_step(options: argparse.Namespace, classes: int) -> float:
    """Seconds of the fastest of `options.steps` training steps."""
    import vitrim

    network = vitrim.create_model("transunet", num_classes=classes, image_size=options.size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.randn(options.batch, 1, options.size, options.size)
    labels = torch.randint(0, classes, (options.batch, options.size, options.size))

    def step() -> None:
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return min(_seconds(step) for _ in range(options.steps))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
