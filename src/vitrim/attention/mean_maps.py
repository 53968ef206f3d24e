"""The mean attention map of each block and head over many images, and how much attention depends on the image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.forward import as_written, captured_runs
from vitrim.attention.tokens import check_call, check_layers, find_tokens, own_attention
from vitrim.errors import InputError


@dataclass(frozen=True)
class MeanMaps:
    """Attention over images: mean maps, and content dependence."""

    maps: dict[int, Tensor]
    """Block, from 1, to the mean over images of its maps, (heads, N, N), with class and register tokens."""
    content: tuple[np.ndarray, ...]
    """For each block, the content dependence of its heads, (heads,): mean over queries of H(mean over images of A_i) −
    mean over images of H(A_i), divided by log N. 0 if every image is looked at alike; at most 1."""


def mean_maps(model: nn.Module, images: Iterable[Tensor]) -> MeanMaps:
    """Measure `MeanMaps` over batches of images (B, C, H, W). Only sums are kept.

    Raises:
        InputError: if there are no images, or as `vitrim.profile_attention` does.
    """
    model = as_written(model)
    wanted = own_attention(model, None)
    maps: dict[str, Tensor] = {}
    entropies: dict[str, Tensor] = {}
    count = 0
    with captured_runs(model) as run:
        for batch in images:
            size = (int(batch.shape[-2]), int(batch.shape[-1]))

            def add(call: AttentionCall, count: int = len(batch), size: tuple[int, int] = size) -> bool | None:
                if not wanted(call.layer) or call.shape[2] < call.shape[3]:
                    return None
                check_call(call, count, size, None)
                if call.layer not in maps:
                    find_tokens(call, size, model=model)
                    maps[call.layer] = torch.zeros(call.shape[1:], dtype=torch.float32, device=call.device)
                    entropies[call.layer] = torch.zeros(call.shape[1:3], dtype=torch.float64, device=call.device)
                for _, heads, weights in call.parts():
                    maps[call.layer][heads] += weights.sum(dim=0)
                    entropies[call.layer][heads] += torch.special.entr(weights).sum(dim=(0, -1))
                return True

            captured = run(batch, add)
            if not count:
                check_layers(model, None, captured)
            count += len(batch)
    if not count:
        raise InputError("there are no images to measure attention on")
    means = {layer: total / count for layer, total in maps.items()}
    content = []
    for layer, mean in means.items():
        pooled = torch.special.entr(mean.double()).sum(dim=-1)
        apart = (pooled - entropies[layer] / count).mean(dim=-1) / math.log(mean.shape[-1])
        content.append(apart.clamp_min(0).cpu().numpy())
    return MeanMaps(dict(enumerate(means.values(), start=1)), tuple(content))
