"""The keys of a training's configuration. Pydantic checks each of them on creation."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, model_validator

from vitrim.config.names import (
    AugmentationName,
    Checkpoint,
    Device,
    Schedule,
    TrainingPrecision,
    TransformName,
)
from vitrim.config.network_schema import Strict


def _augmentation(value: Any) -> Any:
    """Check an augmentation. Raises ValueError: pydantic's own errors would name the forms that were not meant."""
    if isinstance(value, str):
        _known(value, get_args(AugmentationName))
        return value
    if not isinstance(value, list):
        raise ValueError("expected none, light, medical or a list of transforms")
    for place, entry in enumerate(value):
        if not (isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry.values())), dict)):
            raise ValueError(f"entry {place} is not one transform with its parameters, as RandFlip: {{prob: 0.5}}")
        ((name, parameters),) = entry.items()
        _known(name, get_args(TransformName))
        prob = parameters.get("prob", 0)
        if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
            raise ValueError(f"prob of {name} is not a number from 0 to 1")
    return value


def _known(name: Any, names: Sequence[str]) -> None:
    if name not in names:
        near = get_close_matches(str(name), names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{str(name)[:100]!r} is unknown{hint}; choose from {', '.join(names)}")


Augmentation = Annotated[
    AugmentationName | list[dict[TransformName, dict[str, Any]]],
    BeforeValidator(_augmentation),
]
"""A named augmentation, or a list of transforms, each a mapping of its name to its parameters."""


class TrainConfig(Strict):
    """The training of a network. The default values are those of the paper, 3.6.

    Example:
        >>> import vitrim
        >>> vitrim.TrainConfig(epochs=10).learning_rate
        0.0001
    """

    epochs: int | None = Field(default=None, ge=1)
    """Number of passes over the training slices. Give either this or `steps`."""
    steps: int | None = Field(default=None, ge=1)
    """Number of optimiser steps. Give either this or `epochs`."""
    batch_size: int = Field(default=8, ge=1)
    """Number of slices per step, over all devices together."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Largest learning rate of AdamW."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    schedule: Schedule = "constant"
    """Schedule of the learning rate. `cosine`: a short linear warm-up, then a cosine down to zero."""
    augment: Augmentation = "none"
    """Random changes of training slices. `light`: those of the public TransUNet code, quarter turns with a flip, or a
    turn by up to 20°. `medical`: small turns, zoom, noise, blur, contrast, bias field and lower resolution, without
    flips. Or a list of MONAI's random transforms, as `[{RandFlip: {prob: 0.5, spatial_axis: 0}}]` (docs/study.md)."""
    checkpoint: Checkpoint = "last"
    """Weights that a training ends with: those of the last step, or those with the `best` loss on tuning cases."""
    nested: bool = False
    """Whether the tokens leave after a random block in every second step, so that one network can be evaluated at every
    depth (Fan et al. 2020, Elhoushi et al. 2024)."""
    precision: TrainingPrecision = "auto"
    """Precision, as Lightning names it. `auto`: bf16 where the hardware has it, else float32. `tf32` and `16-mixed` are
    for a GPU."""
    device: Device = "auto"
    """Device. `auto`: a GPU if there is one."""
    compile: bool = False
    """Whether torch compiles the network for the training: minutes at the start, then faster steps on a GPU."""
    workers: int | None = Field(default=None, ge=0)
    """Number of processes that read the slices; by default 4 (at most one per core) on a GPU and 0 on a CPU."""
    devices: int = Field(default=1, ge=1)
    """Number of GPUs (on a CPU: processes) per machine that share one training. Each gets a part of every batch."""
    nodes: int = Field(default=1, ge=1)
    """Number of machines that share one training, each with `devices` GPUs or processes."""

    @property
    def has_quarter_turns(self) -> bool:
        """Whether slices may be turned by 90°, which only square slices can be."""
        if isinstance(self.augment, str):
            return self.augment == "light"
        return any("RandRotate90" in entry for entry in self.augment)

    @property
    def processes(self) -> int:
        """Number of processes that share one training, on all machines together."""
        return self.nodes * self.devices

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if self.nested and self.processes > 1:
            raise ValueError("nested training uses one device: leave devices and nodes out")
        if self.nested and self.compile:
            raise ValueError("nested training changes the network in every step: leave compile out")
        return self
