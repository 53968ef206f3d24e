"""Makes and evaluates the candidates of a compression: smaller networks of one network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from vitrim.attention.forward import CaseImages
from vitrim.compression.block_selection import Choice, choose_blocks
from vitrim.config.names import Criterion, DecoderForm, Device, Recovery
from vitrim.config.schema import AttentionConfig, TrainConfig
from vitrim.data.cache import PreparedData, SliceDataset
from vitrim.data.sampling import case_images, evenly_spaced
from vitrim.evaluation.accuracy import evaluate_cases
from vitrim.hardware import Hardware
from vitrim.metrics.statistics import network_dice
from vitrim.models.adapt import Adapted
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.models.user_models import ModelSource
from vitrim.progress import Reporter, silent
from vitrim.training.distillation import recover
from vitrim.training.loop import Training, total_steps

ANALYSIS = AttentionConfig(cases=40, slices=8)


@dataclass(frozen=True)
class CompressionRequest:
    """The settings of a compression."""

    depth: int | None = None
    """Blocks to keep; None if vitrim decides the depth."""
    decision: Path | None = None
    """A decision.json with the number of blocks to keep."""
    tolerance: float | None = None
    """Tolerated loss of Dice, as a share, to decide the depth by accuracy alone. If None, the procedure decides."""
    criterion: Criterion = "first"
    """Criterion for the blocks to keep (`vitrim.compression.block_selection`)."""
    decoder: DecoderForm | None = None
    """Form of the decoder of the smaller network; that of the network if None."""
    recovery: Recovery = "none"
    epochs: int | None = None
    """Epochs of the recovery; by default as many as the checkpoint's training had."""
    steps: int | None = None
    seed: int = 0
    device: Device = "auto"

    @property
    def needs_data(self) -> bool:
        """Whether the compression needs cases, to measure or to train."""
        given = self.depth is not None or self.decision is not None
        return not given or self.recovery != "none" or self.criterion in ("influence", "effect")


@dataclass
class CompressionRun:
    """One compression: the network, the settings and the data."""

    network: Network | Adapted
    request: CompressionRequest
    reporter: Reporter
    training: TrainConfig | None
    model: ModelSource | None = None
    """What builds a network of another library."""
    data: PreparedData | None = None
    train: tuple[str, ...] = ()
    tuning: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    """Labelled cases that the checkpoint's study held out; they only confirm a depth."""
    made: dict[int, tuple[Network | Adapted, Choice, Training | None]] = field(default_factory=dict)

    def smaller(self, depth: int) -> tuple[Network | Adapted, Choice, Training | None]:
        """Return the network with `depth` blocks, its choice and its recovery (None without). It is made once."""
        if depth not in self.made:
            choice = choose_blocks(
                self.network,
                depth,
                self.request.criterion,
                images=self._images(),
                dice=self._dice,
                seed=self.request.seed,
            )
            small = _kept(self.network, choice, self.request.decoder)
            self.made[depth] = (small, choice, self._recovered(small, choice))
        return self.made[depth]

    def cases(self, network: Network | Adapted, title: str, ids: tuple[str, ...] | None = None) -> pd.DataFrame:
        """Return the per-case table of a network on the tuning cases, or on `ids`."""
        assert self.data is not None
        ids = self.tuning if ids is None else ids
        with self.reporter.stage(f"evaluate {title}", len(ids)) as stage:
            return evaluate_cases(fold_for_inference(network), self.data, ids, self.hardware, stage)

    def example(self) -> np.ndarray:
        """Return slices (16, C, H, W) for the speed measurement; noise if there are no cases."""
        if self.data is None:
            return np.random.default_rng(0).normal(size=(16, *self.network.example.shape[1:])).astype(np.float32)
        images = self.data.cache.case(self.train[0]).images
        return np.array(images[np.arange(16) % len(images)])

    @property
    def hardware(self) -> Hardware:
        """The hardware of the training configuration; without one, the device that was asked for."""
        return Hardware.of(self.training) if self.training is not None else Hardware.choose(self.request.device)

    def _recovered(self, small: Network | Adapted, choice: Choice) -> Training | None:
        if self.request.recovery == "none" or not small.depth < self.network.depth:
            return None
        assert self.data is not None
        assert self.training is not None
        slices = SliceDataset(self.data.cache, self.train, empty_slices=self.data.config.empty_slices)
        distil = self.request.recovery == "distil"
        title = f"{'distil' if distil else 'train further'}, {small.depth} blocks"
        with self.reporter.stage(title, total_steps(self.training, len(slices))) as stage:
            return recover(
                small,
                slices,
                self.training,
                teacher=self.network if distil else None,
                kept=choice.kept,
                seed=self.request.seed,
                stage=stage,
            )

    def _images(self) -> Iterator[CaseImages] | None:
        if self.data is None:
            return None
        cases = evenly_spaced(self.train, ANALYSIS.cases)
        return case_images(cases, self.data.cache, ANALYSIS.slices, silent(len(cases)))

    def _dice(self, network: Network | Adapted) -> float:
        return network_dice(self.cases(network, "without one block"))


def _kept(network: Network | Adapted, choice: Choice, decoder: DecoderForm | None) -> Network | Adapted:
    if isinstance(network, Adapted):
        return network.keep_blocks(choice.kept)
    return network.keep_blocks(choice.kept, decoder)
