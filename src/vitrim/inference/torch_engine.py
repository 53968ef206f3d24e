"""Runs a network in torch, in the fastest form for this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitrim.config.names import Device
from vitrim.config.schema import DataConfig
from vitrim.data.recipe import Recipe, stored_recipe
from vitrim.errors import InputError
from vitrim.evaluation.segment import to_device
from vitrim.files import sha256
from vitrim.hardware import Hardware, check_precision, float32_products, out_of_memory
from vitrim.inference.int8 import to_int8
from vitrim.inference.per_image import large_maps_by_image
from vitrim.models.adapt import Adapted
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.models.opening import open_network, weights_file
from vitrim.models.user_models import ModelSource

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Data type of the products in each precision that has its own."""


@dataclass
class TorchEngine:
    """A network in torch, in eval mode, on `device`, computing in `precision` (one of `Precision`, but not auto)."""

    network: Network | Adapted
    identity: str
    recipe: Recipe | None
    device: str
    precision: str

    def __post_init__(self) -> None:
        network = self.network
        self.channels, self.image_size, self.num_classes = network.in_chans, network.image_size, network.num_classes
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device == "cpu":
            self.network = large_maps_by_image(self.network)
        if self.precision == "int8":
            if isinstance(self.network, Adapted):
                raise InputError(f"int8 is for vitrim's own networks, not {network.title}; choose another precision")
            self.network = to_int8(self.network)

    @classmethod
    def open(
        cls,
        checkpoint: Path,
        precision: str = "auto",
        model: ModelSource | None = None,
        prepared: DataConfig | None = None,
        device: Device = "auto",
    ) -> TorchEngine:
        """Open the network in `checkpoint` (`open_network`) and fold it. `auto`: it runs on the GPU if there is one.

        Raises InputError if the network is missing or damaged, or if this machine has no such device or does not
        compute in `precision`.
        """
        hardware = Hardware.choose("cpu" if device == "auto" and precision == "int8" else device)
        network = fold_for_inference(open_network(checkpoint, model, prepared))
        if precision == "int8" and hardware.device == "gpu":
            raise InputError("int8 runs on a CPU only; choose --device cpu, or another --precision")
        check_precision(precision, hardware.device)
        if precision == "auto":
            precision = "bf16" if hardware.precision == "bf16-mixed" else "float32"
        identity = sha256(weights_file(checkpoint))
        return cls(network, identity, stored_recipe(checkpoint), hardware.torch_device, precision)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return the logits (B, K, H, W) of float32 images (B, C, H, W). On a GPU the work is only queued."""

        def run(size: int) -> Tensor:
            return self.network(to_device(images[:size], torch.device(self.device)))

        kind = TYPES.get(self.precision)
        with (
            torch.inference_mode(),
            float32_products(self.precision),
            torch.autocast(self.device, kind, enabled=kind is not None),
        ):
            try:
                return run(len(images))
            except torch.OutOfMemoryError:
                pass
            raise InputError(out_of_memory(run, len(images), "--batch"))
