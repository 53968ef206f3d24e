"""Runs a network in torch, in the fastest form for this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitrim.data.recipe import Recipe, stored_recipe
from vitrim.errors import InputError
from vitrim.files import sha256
from vitrim.hardware import Hardware
from vitrim.inference.folding import fold_for_inference
from vitrim.inference.int8 import to_int8
from vitrim.inference.per_image import large_maps_by_image
from vitrim.models.checkpoint import load_model
from vitrim.models.network import Network


@dataclass
class TorchEngine:
    """A network in torch, in eval mode, on `device`, computing in `precision` (float32, bf16 or int8)."""

    network: Network
    identity: str
    recipe: Recipe | None
    device: str
    precision: str

    def __post_init__(self) -> None:
        config = self.network.config
        self.channels, self.image_size, self.num_classes = config.in_chans, config.image_size, config.num_classes
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device == "cpu":
            self.network = large_maps_by_image(self.network)
        if self.precision == "int8":
            self.network = to_int8(self.network)

    @classmethod
    def open(cls, checkpoint: Path, precision: str = "auto") -> TorchEngine:
        """Read the network in the folder `checkpoint` and fold it. It runs on the GPU if there is one.

        Raises InputError if the network is missing or damaged, or if `precision` is int8 and int8 is not available.
        """
        network = fold_for_inference(load_model(checkpoint))
        hardware = Hardware.choose()
        if precision == "int8" and hardware.device == "gpu":
            raise InputError("int8 runs on a CPU only, and this machine has a GPU; leave --precision out to use it")
        if precision == "auto":
            precision = "bf16" if hardware.precision == "bf16-mixed" else "float32"
        identity = sha256(checkpoint / "model.safetensors")
        return cls(network, identity, stored_recipe(checkpoint), hardware.torch_device, precision)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return the logits (B, K, H, W) of float32 images (B, C, H, W)."""
        batch = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        try:
            with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
                return self.network(batch)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{len(images)} slices do not fit into the GPU's memory; lower --batch") from error
