"""The keys of a configuration: data and study. Pydantic checks each of them on creation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vitrim.config.names import (
    DecidingMeasure,
    DecoderForm,
    ExchangeForm,
    Head,
    LayoutName,
    NetworkName,
    Normalization,
    PhantomName,
    RuleName,
    Scaling,
    SliceAxis,
    TruncatedStart,
    VoxelSize,
)
from vitrim.config.network_schema import HoldsViT, ImageSize, Strict
from vitrim.config.training_schema import TrainConfig

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A random seed; numpy and torch accept 32 bits."""


class PhantomConfig(Strict):
    """A phantom data set, drawn from a seed."""

    kind: PhantomName
    """What is drawn (`vitrim.data.phantoms`)."""
    cases: int = Field(ge=2)
    """Number of cases."""
    shape: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)], Annotated[int, Field(ge=1)]] | None = None
    """Voxels of a volume along the patient's axes (left-right, back-front, foot-head). Each kind has a default."""
    classes: int | None = None
    """Number of the kind's structures that get a label, in the kind's order; all by default."""
    seed: Seed = 0
    """Random seed of everything that is drawn."""
    hops: int = Field(default=1, ge=1)
    """`longrange`: number of marks on the way from a disc to its class; 1 means the mark opposite the disc. `chain`:
    largest number of links to follow, 1 to 3."""
    places: int = Field(default=12, ge=4)
    """`longrange`: number of places for discs and marks; must be even. `chain`: number of patches in use; 16 by
    default."""
    balanced: bool = True
    """`longrange` and `chain`: whether each scene has equal numbers of the classes. If not, each class is drawn
    independently."""
    noise: float = Field(default=1.0, ge=0)
    """Factor on the noise; 0 means no noise."""
    bias_field: float = Field(default=0.0, ge=0, lt=1)
    """Strength s of the bias field: it multiplies intensities by 1 - s to 1 + s. 0.3 is usual in MRI."""
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel spacing in mm along the patient's axes (left-right, back-front, foot-head); by default the kind's field of
    view divided by `shape`."""
    orientation: str = Field(default="RAS", pattern=r"^[RLAPSI]{3}$")
    """Orientation of the array axes on disk, in the letters of nibabel's `aff2axcodes`."""

    @model_validator(mode="before")
    @classmethod
    def _places_of_a_chain(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") == "chain":
            return {"places": 16, **values}
        return values


class DataConfig(Strict):
    """The cases, their split, and their preprocessing."""

    layout: LayoutName = "decathlon"
    """How the files lie in the data folder; one module of `vitrim.data.readers` describes each layout."""
    phantom: PhantomConfig | None = None
    """A phantom data set that the study makes if no data folder is given."""
    image_size: ImageSize = (224, 224)
    """Height and width in pixels to which every slice is scaled, each a multiple of 16. One number means a square."""
    axis: SliceAxis = "axial"
    """Direction of the slices: an anatomical plane (found from the affine); `through-plane`, the anatomical plane
    nearest to the acquired slices, across the largest voxel spacing; or an array axis, without reorientation."""
    clip: tuple[float, float] | None = None
    """Intensity range. Intensities are clipped to it before normalisation."""
    normalize: Normalization = "zscore"
    """Normalisation per volume and channel. `unit` maps the limits of `clip` to 0 and 1, as in the public
    TransUNet code."""
    crop: tuple[PositiveInt, PositiveInt] | None = None
    """Size of the centre crop of each slice, in voxels. Smaller slices are padded."""
    scaling: Scaling = "linear"
    """Scaling of slices to `image_size`. `linear`: linear interpolation (labels: nearest neighbour), pixel centres
    aligned. `zoom`: `scipy.ndimage.zoom` of order 3 (labels: 0), corner pixels aligned, as in the public TransUNet
    code."""
    voxel_size: VoxelSize | None = None
    """Where a NIfTI header's voxel size is read, if its sform and its pixdim differ by more than 1 %. Without it, such
    an image is an error in a study."""
    classes: list[str] | None = None
    """Names of the foreground classes in the order of their label values. They must match those of the data set."""
    validation: int | float = 0.2
    """Held-out cases: a number of cases, or a share of all cases."""
    tuning: int | float | None = None
    """Tuning cases: a number of cases, or a share of all cases. They are neither trained on nor held out: the depth is
    chosen on them. By default 10 cases, or a tenth of all if that is more; none if they would be more than a third of
    the cases that are not held out, or with a `split_file`."""
    train: int | None = Field(default=None, ge=1)
    """Number of training cases; by default all cases that are neither held out nor used for tuning."""
    split_file: Path | None = None
    """File with the split, instead of a drawn split: JSON with the lists `train`, `validation` and (optional) `tuning`
    of case ids; or nnU-Net's splits_final.json, a list of folds with `train` and `val`, from which `fold` selects."""
    folds: int | None = Field(default=None, ge=2)
    """Number of folds. All cases are divided into them, and one fold is held out; replaces `validation` and `train`."""
    fold: int = Field(default=0, ge=0)
    """Number of the held-out fold, counted from 0."""
    patient: str | None = None
    """Regular expression whose first group finds the patient in a case id, for example `(.+)_visit\\d+`. All cases of
    one patient are in the same part of the split. By default each case is a separate patient."""
    nested: bool = False
    """`emidec` only: whether to evaluate the challenge's nested regions: myocardium with everything inside it, and
    infarction with no-reflow."""
    empty_slices: bool = True
    """Whether to train also on slices without any label."""

    @model_validator(mode="after")
    def _makes_sense(self) -> DataConfig:
        if not (self.validation >= 1 if isinstance(self.validation, int) else 0 < self.validation < 1):
            raise ValueError(f"validation {self.validation} is neither a number of cases nor a share between 0 and 1")
        tuning = 0 if self.tuning is None else self.tuning
        if not (tuning >= 0 if isinstance(tuning, int) else 0 <= tuning < 1):
            raise ValueError(f"tuning {self.tuning} is neither a number of cases nor a share between 0 and 1")
        if self.fold >= (self.folds or 1) and not (self.split_file and self.folds is None):
            raise ValueError(f"there is no fold {self.fold}: the number of folds is {self.folds or 1}, counted from 0")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip {list(self.clip)} leaves no range: give the lower limit first")
        if self.normalize == "unit" and self.clip is None:
            raise ValueError("normalize: unit maps the limits of clip to 0 and 1: give clip")
        if self.nested and self.layout != "emidec":
            raise ValueError("nested: only the layout emidec has nested regions")
        if self.layout == "pictures" and self.axis != "axial":
            raise ValueError("axis: a picture is one slice, which is shown as it is stored; leave axis out")
        if self.patient is not None:
            try:
                groups = re.compile(self.patient).groups
            except re.error as error:
                raise ValueError(f"patient is not a regular expression: {error}") from error
            if groups < 1:
                raise ValueError("patient has no group: put parentheses around the part that names the patient")
        return self


class AttentionConfig(Strict):
    """The measurement of attention, and the decision of a depth from it (docs/definitions.md)."""

    measure: DecidingMeasure = "globality"
    """Attention measure that decides."""
    head: Head = "mean"
    """Attention that decides the depth: averaged over heads, or of the most global head."""
    threshold: float = Field(default=2 / 3, gt=0)
    """The first block whose measure reaches this value is the last one that is kept."""
    cases: int | None = Field(default=None, ge=1)
    """Number of training cases to measure; all by default."""
    slices: int | None = Field(default=None, ge=1)
    """Number of evenly spaced slices per case; all by default."""
    forms: list[ExchangeForm] = Field(default=["identity", "constant", "uniform"])
    """What takes the place of attention when exchange is measured. `identity` is always measured; with others, each
    block is also changed alone."""
    maps: list[int] = Field(default=[1, 2, 3, 6])
    """Blocks, counted from 1, whose raw attention maps are drawn (paper, figures 4 and 5)."""


class StudyNetwork(Strict):
    """One network of a study, with its fixed depths."""

    depths: list[Annotated[int, Field(ge=0)]] = Field(default=[])
    """Fixed depths: trained in addition to the full network and the decided depth."""
    backbone: str = "resnet50"
    """CNN of 2D CATS: the name of a timm model."""


class StudyConfig(HoldsViT):
    """A study: train full networks, measure their attention, truncate them, train the truncated ones, compare."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the study: letters, digits, dots, dashes. Its results are in `runs/NAME` by default."""
    data: DataConfig
    """The cases, their split, and their preprocessing."""
    networks: dict[NetworkName, StudyNetwork] = Field(min_length=1)
    """The networks to study; `{}` is a network without options."""
    width: float = Field(default=1.0, gt=0, le=64)
    """Factor on the number of channels of all convolutions."""
    pretrained: bool | str = False
    """Weights from which full networks start. `true`: ImageNet weights from timm's hub; a path: a local file or folder
    (docs/pretrained.md); `false`: random weights."""
    training: TrainConfig
    """The training of every network."""
    attention: AttentionConfig = AttentionConfig()
    """The measurement of attention."""
    margins: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default=[0.05, 0.01])
    """Non-inferiority margins: relative losses of Dice against the full network, as shares (docs/definitions.md)."""
    seed: Seed = 0
    """Random seed of the split, the initial weights and the order of the slices."""
    seeds: list[Seed] | None = Field(default=None, min_length=1)
    """Seeds of the trainings: every network is trained once with each. `seed` then draws only the split."""
    folds: int | None = Field(default=None, ge=2)
    """Number of folds: every network is trained once on each, instead of only on `data.fold`."""
    depths: list[Annotated[int, Field(ge=0)]] | None = None
    """Fixed depths of every network; replaces `networks.NAME.depths`. Depths that a network lacks are left out."""
    rule: RuleName = "exchange"
    """Rule that proposes the depth (`vitrim.compression.depth_rules`)."""
    tries: int = Field(default=4, ge=0)
    """Largest number of depths that are trained to find the depth of a network, in addition to the fixed ones. With 0
    only the fixed ones are trained."""
    decoder: DecoderForm = "paper"
    """Decoder of truncated 2D UNETR and 2D CATS (`NetworkConfig.decoder`)."""
    noise_floor: bool = False
    """Whether the full network is also trained with a second seed. No change smaller than theirs is about depth."""
    truncated_from: TruncatedStart = "scratch"
    """Weights from which truncated networks start. `scratch`: the initial weights of the full network, as in the paper.
    `inherit`: its trained weights. `distil`: its trained weights, with the full network as teacher."""

    @model_validator(mode="after")
    def _nothing_twice(self) -> StudyConfig:
        for name in ("seeds", "depths"):
            given = getattr(self, name) or []
            if len(set(given)) < len(given):
                raise ValueError(f"{name} {given} contain a number twice")
        return self

    @model_validator(mode="after")
    def _depths_exist(self) -> StudyConfig:
        given = {"depths": self.depths or []}
        given |= {f"networks.{name}.depths": network.depths for name, network in self.networks.items()}
        for where, depths in given.items():
            for place, depth in enumerate(depths):
                if depth > self.full_depth:
                    whose = f"{self.vit} has" if self.vit else "a full network has"
                    raise ValueError(f"{where}.{place}: {whose} {self.full_depth} blocks (got {depth})")
        return self

    @model_validator(mode="after")
    def _slices_can_be_turned(self) -> StudyConfig:
        height, width = self.data.image_size
        if self.training.has_quarter_turns and height != width:
            raise ValueError(f"training.augment turns slices by 90°: data.image_size {height} × {width} is not square")
        return self

    @model_validator(mode="after")
    def _rule_can_propose(self) -> StudyConfig:
        if self.rule == "accuracy":
            raise ValueError("rule: accuracy compares trained depths and cannot propose one; choose another rule")
        if self.rule == "constant" and "constant" not in self.attention.forms:
            raise ValueError("rule: constant needs constant in attention.forms")
        if self.training.nested:
            raise ValueError("training.nested is for `vitrim.recover` and `rule: nested`; leave it out of a study")
        if self.rule == "nested" and self.training.processes > 1:
            raise ValueError("rule: nested trains on one device: leave devices and nodes out")
        return self

    @property
    def all_seeds(self) -> list[int]:
        """All seeds of the trainings."""
        return self.seeds or [self.seed]
