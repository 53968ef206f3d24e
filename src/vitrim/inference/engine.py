"""What computes the logits: a network in torch, or an ONNX file; to the rest they are the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from pydantic import ValidationError
from torch import Tensor

from vitrim.config import DataConfig, explain
from vitrim.data.readers import emidec, ibsr18, synapse
from vitrim.errors import InputError

Precision = Literal["auto", "float32", "bf16", "int8"]
"""Of the products in a network: `auto` is bf16 where the hardware multiplies it, float32 elsewhere."""


@dataclass(frozen=True)
class Recipe:
    """How images become what the network takes, and what the classes that come out are called."""

    data: DataConfig
    classes: dict[int, str]

    @classmethod
    def parse(cls, content: Any, where: str) -> Recipe:
        """Read what a study stores beside a checkpoint (`preparation.json`); InputError if that is not it."""
        try:
            return cls(
                DataConfig.model_validate(content["data"]), {int(n): str(c) for n, c in content["classes"].items()}
            )
        except ValidationError as error:
            raise InputError(f"{where}: {explain(error)}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} does not hold what vitrim writes there: data and classes") from error

    def dump(self) -> dict[str, Any]:
        """The same as JSON; `parse` reads it back."""
        return {
            "data": self.data.model_dump(mode="json", exclude={"phantom", "split_file"}),
            "classes": {str(value): name for value, name in self.classes.items()},
        }


class Engine(Protocol):
    """Computes logits."""

    identity: str
    """SHA-256 of the weights."""
    precision: str
    """In which it computes."""
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    recipe: Recipe | None
    """How the images have to be prepared, where the checkpoint knows."""

    def __call__(self, images: np.ndarray) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W), float32."""
        ...


def open_engine(checkpoint: Path, precision: str = "auto") -> Engine:
    """The engine for a checkpoint: the folder of a network, or a file that `vitrim export` wrote.

    InputError where it is neither, or is damaged; also if this machine cannot compute in `precision` (a `Precision`).
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(get_args(Precision))}, not {precision}")
    if checkpoint.suffix == ".onnx":
        if precision != "auto":
            raise InputError(f"{checkpoint} has a precision of its own; export it again with --int8, or without")
        from vitrim.inference.onnx_engine import OnnxEngine

        return OnnxEngine.open(checkpoint)
    from vitrim.inference.torch_engine import TorchEngine

    return TorchEngine.open(checkpoint, precision)


def stored_recipe(checkpoint: Path) -> Recipe | None:
    """The recipe in `preparation.json` beside a checkpoint; None where there is none."""
    path = checkpoint / "preparation.json"
    try:
        return Recipe.parse(json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def recipe_for(engine: Engine, checkpoint: Path, study: DataConfig | None) -> Recipe:
    """How to prepare images for `engine`: as `study` says, else as the checkpoint does.

    InputError where neither says so, or where it does not fit the network.
    """
    recipe = engine.recipe
    if study is not None:
        names = recipe.classes if recipe else _names(study)
        recipe = Recipe(study, {n: names.get(n, f"class {n}") for n in range(engine.num_classes)})
    if recipe is None:
        raise InputError(
            f"{checkpoint} does not say how its images are prepared (no preparation.json); say it with --study, the "
            f"name of a preset or a file whose data section does"
        )
    if recipe.data.image_size != engine.image_size:
        raise InputError(
            f"{checkpoint} takes images of {engine.image_size}, the study prepares {recipe.data.image_size}"
        )
    if sorted(recipe.classes) != list(range(engine.num_classes)):
        raise InputError(f"{checkpoint} has {engine.num_classes} classes, its preparation names {len(recipe.classes)}")
    return recipe


def _names(study: DataConfig) -> dict[int, str]:
    """What a study calls its classes, as far as it can be known without its data."""
    own = {"synapse": synapse.CLASSES, "ibsr18": ibsr18.CLASSES, "emidec": emidec.CLASSES}
    return own.get(study.layout) or dict(enumerate(["background", *(study.classes or [])]))
