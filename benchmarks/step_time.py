"""Hours that the trainings of a study take on this machine, from the measured time of a training step.

    python benchmarks/step_time.py ibsr18 --slices 1280 [--steps 5] [--threads 1] [--runs 1] [--only transunet]

For every network of the study, at full depth and at its fixed depths, a few steps run with the settings of the study
(precision, batch, loss, optimiser) on slices of noise. The fastest step counts. The hours of a study are the sum over
its trainings of steps × seconds a step / 3600. Evaluation and attention are not included, nor is the training at the
decided depth if that is not a fixed one. The weights are random, which does not change the time.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import torch
from torch.utils.data import Dataset

from vitrim.config.reading import load_study
from vitrim.config.schema import StudyConfig
from vitrim.hardware import resolved
from vitrim.models.factory import build
from vitrim.progress import TrainingProgress
from vitrim.studies.plan import fixed_depths, network_config
from vitrim.training.loop import total_steps, train_network


class Noise(Dataset):
    """A data set of `count` slices of noise."""

    def __init__(self, count: int, size: tuple[int, int], classes: int) -> None:
        self.count, self.size, self.classes = count, size, classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {"image": torch.randn(1, *self.size), "label": torch.randint(self.classes, self.size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--slices", type=int, required=True, help="training slices of the study")
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="steps to measure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=1, help="seeds times folds")
    parser.add_argument("--only", nargs="+", help="only these networks of the study")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study = load_study(options.study)
    study = study.model_copy(update={"training": resolved(study.training), "pretrained": False})
    steps = total_steps(study.training, options.slices)
    device = torch.cuda.get_device_name() if study.training.device == "gpu" else f"{options.threads} CPU threads"
    print(
        f"{study.name} on {device}, {study.training.precision}, batch {study.training.batch_size}, {steps} steps each"
    )
    hours = 0.0
    for name in options.only or study.networks:
        for depth in sorted({study.full_depth, *fixed_depths(study, name)}, reverse=True):
            seconds = step_seconds(study, name, depth, options.classes, options.steps)
            hours += seconds * steps / 3600
            print(f"  {name}, {depth} blocks: {seconds:.3f} s a step, {seconds * steps / 3600:.2f} h a training")
    unit = "GPU hours" if study.training.device == "gpu" else f"hours of {options.threads} threads"
    print(f"  total {hours:.1f} {unit}; for {options.runs} seeds × folds {hours * options.runs:.1f}")


def step_seconds(study: StudyConfig, name: str, depth: int, classes: int, steps: int) -> float:
    """Seconds of the fastest of `steps` training steps; a first step is not counted."""
    network = build(network_config(study, name, classes, channels=1)).truncated(depth)  # type: ignore[arg-type]
    ends: list[float] = []

    def watch(moment: TrainingProgress) -> None:
        if study.training.device == "gpu":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    config = study.training.model_copy(update={"steps": steps + 1, "epochs": None})
    data = Noise(config.batch_size * (steps + 1), study.data.image_size, classes)
    train_network(network, data, config, 0, watch=watch)
    return min(after - before for before, after in pairwise(ends))


if __name__ == "__main__":
    main()
