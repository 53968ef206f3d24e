"""Predict label maps from slices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.errors import InputError

BATCH = 8
"""Number of slices in one forward pass outside training."""


@torch.inference_mode()
def predict_slices(network: nn.Module, images: np.ndarray, batch_size: int = BATCH) -> np.ndarray:
    """Predict the labels (S, H, W), uint8, of images (S, C, H, W): the class of the largest logit.

    The function changes neither mode nor device of the network; put it in eval mode first. Raises InputError if a logit
    is not finite, because the argmax of NaN is meaningless.
    """
    device = next(network.parameters()).device

    def run(batch: np.ndarray) -> Tensor:
        return network(to_device(batch, device))

    return segment_slices(run, images, batch_size)[0]


def to_device(batch: np.ndarray, device: torch.device) -> Tensor:
    """Return a batch (B, C, H, W) as a tensor on the device, channels last. The copy to a GPU is only queued."""
    tensor = torch.from_numpy(batch)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)


def labels_of(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, (B, H, W), uint8, of logits (B, K, H, W); the first of equal ones."""
    return logits.max(dim=1).indices.to(torch.uint8)  # torch's argmax of contiguous logits takes 5 to 9 times as long


@torch.inference_mode()
def segment_slices(
    run: Callable[[np.ndarray], Tensor], images: np.ndarray, batch_size: int, probabilities: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predict labels (S, H, W), uint8, of images (S, C, H, W) and, if requested, probabilities (K, S, H, W), float32.

    `run` maps a batch (B, C, H, W), float32, to logits (B, K, H, W). On a GPU the batches are queued, and only labels
    come back. Raises InputError if a logit is not finite.
    """
    labels, chances, finite = [], [], []
    for start in range(0, len(images), batch_size):
        logits = run(np.array(images[start : start + batch_size], dtype=np.float32))  # (B, K, H, W)
        finite.append(torch.isfinite(logits).all())
        labels.append(labels_of(logits))
        if probabilities:
            chances.append(logits.float().softmax(dim=1).transpose(0, 1).cpu().numpy())
    if not torch.stack(finite).all():
        raise InputError("the network's logits are not finite: check its weights and the images for NaN and infinity")
    return torch.cat(labels).cpu().numpy(), np.concatenate(chances, axis=1) if probabilities else None
