"""What a configuration may hold: the networks, the data, the training and the study, each checked when it is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vitrim.config.names import (
    FULL_DEPTH,
    DecidingMeasure,
    Device,
    Head,
    LayoutName,
    NetworkName,
    Normalization,
    PhantomName,
    Scaling,
    Schedule,
    SliceAxis,
    StemForm,
    TrainingPrecision,
    TruncatedStart,
    ViTSizeName,
)

PATCH = 16
"""Pixels along one side of a ViT patch, for every network of the study (paper, 3.1.1)."""


def _image_size(value: Any) -> Any:
    """Accept 224 for (224, 224); insist on multiples of the patch, which timm does not."""
    size = (value, value) if isinstance(value, int) else value
    if isinstance(size, (list, tuple)) and any(isinstance(n, int) and (n <= 0 or n % PATCH) for n in size):
        raise ValueError(f"image size {value} is not a multiple of {PATCH}")
    return size


ImageSize = Annotated[tuple[int, int], BeforeValidator(_image_size)]
"""Height and width in pixels, each a multiple of 16; one number means a square."""


class Strict(BaseModel):
    """Refuses unknown keys, and does not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkConfig(Strict):
    """A network, whole: from this and nothing else it is built again (checkpoint)."""

    name: NetworkName
    num_classes: int = Field(ge=2)
    """Classes, the background among them."""
    depth: int = Field(default=FULL_DEPTH, ge=0, le=FULL_DEPTH)
    """Transformer blocks; 12 is the full network."""
    size: ViTSizeName = "base"
    """The ViT's size."""
    image_size: ImageSize = (224, 224)
    in_chans: int = Field(default=3, ge=1)
    backbone: str = "resnet50"
    """CNN of 2D CATS, a timm name."""
    width: float = Field(default=1.0, gt=0)
    """Factor on the channels of everything that is convolution."""
    stem: StemForm = "timm"
    """TransUNet: the form of the ResNetV2 stem (timm's, or the public TransUNet release's)."""
    taps: tuple[int, int, int, int] = (3, 6, 9, 12)
    """2D UNETR and 2D CATS: blocks, counted from 1, that feed 1/2, 1/4, 1/8 and 1/16. At a smaller depth the first tap
    at or beyond it moves to it."""
    pretrained: bool | str = False
    """ImageNet weights: true for timm's hub, or the path of a local file."""

    @model_validator(mode="after")
    def _taps_feed_all(self) -> NetworkConfig:
        first, second, third, last = self.taps
        if not 1 <= first < second < third < last:
            raise ValueError(f"taps {self.taps} are not increasing numbers from 1")
        if last < self.depth:
            raise ValueError(f"taps {self.taps} leave block {last + 1} and later ones unused; set depth to {last}")
        return self


class PhantomConfig(Strict):
    """A seeded phantom that stands in for a data set."""

    kind: PhantomName
    cases: int = Field(ge=2)
    shape: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)], Annotated[int, Field(ge=1)]] | None = None
    """Voxels of a volume along the patient's axes (left-right, back-front, foot-head); by default the kind's own."""
    classes: int | None = None
    """How many of the kind's structures to draw (all by default)."""
    seed: int = 0
    hops: int = Field(default=1, ge=1)
    """`longrange` only: how many marks have to be followed to learn an object's class."""
    places: int = Field(default=12, ge=4)
    """`longrange` only: an even number of places for objects and marks."""
    balanced: bool = True
    """`longrange` only: as many of the one class as of the other in each scene; else each is drawn by itself."""
    noise: float = Field(default=1.0, ge=0)
    """Factor on the noise; 0 draws without."""
    bias_field: float = Field(default=0.0, ge=0, lt=1)
    """How much brighter than the mean a coil makes one side; 0.3 is usual in MRI."""
    spacing: tuple[float, float, float] | None = None
    """Millimetres along the patient's axes (left-right, back-front, foot-head); by default the kind's field of view
    divided by `shape`."""
    orientation: str = Field(default="RAS", pattern=r"^[RLAPSI]{3}$")
    """How the arrays on disk run, as in nibabel's `aff2axcodes`."""


class DataConfig(Strict):
    """Which cases, and what is done to them before a network sees them."""

    layout: LayoutName = "decathlon"
    phantom: PhantomConfig | None = None
    image_size: ImageSize = (224, 224)
    axis: SliceAxis = "axial"
    """How slices are cut: an anatomical plane (found by the affine); `through-plane`, across the thickest side of the
    voxels, as the scanner did; or perpendicular to an array axis, without turning."""
    clip: tuple[float, float] | None = None
    """Intensities are clipped to this range before they are normalised."""
    normalize: Normalization = "zscore"
    """Per volume and channel; `unit` takes the ends of `clip` to 0 and 1, as the public TransUNet code does."""
    crop: tuple[int, int] | None = None
    """Centre crop (pad where smaller) of each slice, in voxels."""
    scaling: Scaling = "linear"
    """How slices come to `image_size`: `linear` (labels by the nearest neighbour), pixel centres aligned; or `zoom`, as
    the public TransUNet code does it, by `scipy.ndimage.zoom` of order 3 (labels 0), the corners' pixels aligned."""
    classes: list[str] | None = None
    """Names of the foreground classes in the order of their label values; must agree with the data set's own."""
    validation: int | float = 0.2
    """Held-out cases: a number, or a share of all."""
    tuning: int | float = 0
    """Cases of the others that are kept out of training too, for choices by accuracy (`vitrim compress --tolerance`): a
    number, or a share of all."""
    train: int | None = Field(default=None, ge=1)
    """Training cases; all that are not held out by default."""
    split_file: Path | None = None
    """JSON with the lists `train` and `validation` of case ids (and `tuning`, if there are any), in place of a drawn
    split; or nnU-Net's splits_final.json, a list of such with `train` and `val`, of which `fold` is used."""
    folds: int | None = Field(default=None, ge=2)
    """Divide all cases into this many folds and hold out one, in place of `validation` and `train`."""
    fold: int = Field(default=0, ge=0)
    """The fold that is held out, counted from 0."""
    patient: str | None = None
    """Regular expression whose first group is the patient in a case's id, as `(.+)_visit\\d+`; cases of one patient
    never come apart. By default every case is a patient."""
    nested: bool = False
    """`emidec`: evaluate the challenge's nested regions (myocardium with all inside it, infarction with no-reflow)."""
    empty_slices: bool = True
    """Whether slices without any label take part in training."""

    @model_validator(mode="after")
    def _makes_sense(self) -> DataConfig:
        if not (self.validation >= 1 if isinstance(self.validation, int) else 0 < self.validation < 1):
            raise ValueError(f"validation {self.validation} is neither a number of cases nor a share between 0 and 1")
        if not (self.tuning >= 0 if isinstance(self.tuning, int) else 0 <= self.tuning < 1):
            raise ValueError(f"tuning {self.tuning} is neither a number of cases nor a share between 0 and 1")
        if self.fold >= (self.folds or 1) and not (self.split_file and self.folds is None):
            raise ValueError(f"fold {self.fold} is not one of {self.folds or 1}: folds count from 0")
        if self.normalize == "unit" and (self.clip is None or self.clip[0] >= self.clip[1]):
            raise ValueError("normalize: unit takes the ends of clip to 0 and 1: give clip, the lower end first")
        if self.nested and self.layout != "emidec":
            raise ValueError("nested regions are those of the layout emidec")
        if self.patient is not None:
            try:
                groups = re.compile(self.patient).groups
            except re.error as error:
                raise ValueError(f"patient is not a regular expression: {error}") from error
            if groups < 1:
                raise ValueError("patient has no group: put parentheses around the part that names the patient")
        return self


class TrainConfig(Strict):
    """How a network is trained (paper, 3.6, by default).

    Example:
        >>> import vitrim
        >>> vitrim.TrainConfig(epochs=10).learning_rate
        0.0001
    """

    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; give either this or `epochs`."""
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Schedule = "constant"
    """`cosine`: a short linear warm-up, then a cosine to zero."""
    precision: TrainingPrecision = "auto"
    device: Device = "auto"
    workers: int = Field(default=0, ge=0)
    devices: int = Field(default=1, ge=1)
    """GPUs (or processes, on a CPU) of one machine that share one training; each takes its part of every batch."""
    nodes: int = Field(default=1, ge=1)
    """Machines that share one training, each with `devices`."""

    @property
    def processes(self) -> int:
        """Processes that share one training, on all machines together."""
        return self.nodes * self.devices

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self


class AttentionConfig(Strict):
    """How attention is measured, and how a depth is decided from it (docs/definitions.md)."""

    measure: DecidingMeasure = "globality"
    head: Head = "mean"
    """Decide by the head-averaged attention, or by the most global head."""
    threshold: float = Field(default=2 / 3, gt=0)
    cases: int | None = Field(default=None, ge=1)
    """Training cases to look at; all by default."""
    slices: int | None = Field(default=None, ge=1)
    """Slices a case, evenly spaced; all by default."""
    maps: list[int] = [1, 2, 3, 6]
    """Blocks whose raw maps are drawn (paper, figures 4 and 5)."""


class StudyNetwork(Strict):
    """One network of a study, and the depths that are trained beside its full one."""

    depths: list[Annotated[int, Field(ge=0, le=FULL_DEPTH)]] = []
    """Fixed depths; the decided depth is trained in any case."""
    backbone: str = "resnet50"


class StudyConfig(Strict):
    """A study: train, look at the attention, cut, compare."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: DataConfig
    networks: dict[NetworkName, StudyNetwork] = Field(min_length=1)
    size: ViTSizeName = "base"
    width: float = Field(default=1.0, gt=0)
    pretrained: bool | str = False
    training: TrainConfig
    attention: AttentionConfig = AttentionConfig()
    margins: list[Annotated[float, Field(gt=0, lt=1)]] = [0.05, 0.01]
    """How much Dice a truncated network may lose, relative to the full one, and still be called not worse."""
    seed: int = Field(default=0, ge=0)
    """Draws the split, the initial weights and the order of the slices."""
    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    """Train everything once with each of these, in place of `seed`, which still draws the split."""
    folds: int | None = Field(default=None, ge=2)
    """Train everything once on each of so many folds, in place of `data.fold` alone."""
    depths: list[Annotated[int, Field(ge=0, le=FULL_DEPTH)]] | None = None
    """Fixed depths of every network, in place of its own; those that it has no form of are left out."""
    truncated_from: TruncatedStart = "scratch"
    """What truncated networks start from: the full one's initial weights (as in the paper); its trained weights; or
    these with the full network as their teacher."""

    @model_validator(mode="after")
    def _nothing_twice(self) -> StudyConfig:
        for name in ("seeds", "depths"):
            given = getattr(self, name) or []
            if len(set(given)) < len(given):
                raise ValueError(f"{name} {given} name one twice")
        return self

    @property
    def all_seeds(self) -> list[int]:
        """Seeds of the trainings."""
        return self.seeds or [self.seed]
