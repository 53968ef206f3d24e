"""What computes the logits: a network in torch, or an ONNX file; to the rest they are the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vitrim.config import DataConfig, explain
from vitrim.data.readers import emidec, ibsr18, synapse
from vitrim.errors import InputError
from vitrim.files import sha256
from vitrim.models.checkpoint import load_model
from vitrim.models.fold import fold_for_inference


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
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    recipe: Recipe | None
    """How the images have to be prepared, where the checkpoint knows."""

    def __call__(self, images: np.ndarray) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W), float32."""
        ...


@dataclass
class TorchEngine:
    """A network in torch, folded, on the GPU if there is one, in bf16 where the hardware has it."""

    network: nn.Module
    identity: str
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    recipe: Recipe | None
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")

    def __post_init__(self) -> None:
        self.network = self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._bf16 = torch.cuda.is_bf16_supported() if self.device == "cuda" else cpu_has_bf16()

    def __call__(self, images: np.ndarray) -> Tensor:
        batch = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self._bf16):
            return self.network(batch)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware (AVX512-BF16 or AMX); emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def open_engine(checkpoint: Path) -> Engine:
    """The engine for a checkpoint: the folder of a network, or a file that `vitrim export` wrote.

    InputError where it is neither, or is damaged.
    """
    if checkpoint.suffix == ".onnx":
        from vitrim.inference.onnx_engine import OnnxEngine

        return OnnxEngine.open(checkpoint)
    network = load_model(checkpoint)
    config = network.config
    return TorchEngine(
        fold_for_inference(network),
        sha256(checkpoint / "model.safetensors"),
        config.in_chans,
        config.image_size,
        config.num_classes,
        stored_recipe(checkpoint),
    )


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
