"""From slices to label maps."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vitrim.errors import InputError


@torch.inference_mode()
def predict_slices(network: nn.Module, images: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """Label every slice: images (S, C, H, W) in, class of the largest logit (S, H, W), uint8, out.

    The network runs in the mode and on the device that it is in; put it in eval mode first. InputError if a logit is
    not finite: the class of NaN would be an answer made of nothing.
    """
    device = next(network.parameters()).device
    labels = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.array(images[start : start + batch_size], dtype=np.float32))
        logits = network(batch.to(device).contiguous(memory_format=torch.channels_last))  # (B, K, H, W)
        if not torch.isfinite(logits).all():
            raise InputError("the network's logits are not finite; its weights or the images are damaged")
        labels.append(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())
    return np.concatenate(labels)
