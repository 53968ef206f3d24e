"""A network for prediction on a CPU that takes a batch apart where maps are large, so that they stay in the cache."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial

import torch
from timm.models.resnetv2 import ResNetStage
from torch import Tensor, nn

from vitrim.models.dry_run import run
from vitrim.models.layers import TwoConvs, UpBlocks
from vitrim.models.network import Network

PARTS = (ResNetStage, TwoConvs, UpBlocks)
"""Several convolutions, from one map (and a skip) to one map."""


def large_maps_by_image(network: Network) -> Network:
    """Return a copy of `network`, which is in eval mode: each part whose map outweighs its weights runs image by image.

    Other parts run on the batch, since to read their weights again for each image would cost more. The logits are the
    same, to rounding, and less memory is needed. The two networks share their weights.
    """
    apart = copy.deepcopy(network, {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())})
    parts = {name: part for name, part in apart.named_modules() if isinstance(part, PARTS)}
    sizes: dict[str, int] = {}

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes[name] = output[0].numel()

    with ExitStack() as hooks:
        for name, part in parts.items():
            hooks.enter_context(part.register_forward_hook(partial(note, name)))
        run(apart, apart.example)
    for name, size in sizes.items():
        if size > sum(parameter.numel() for parameter in parts[name].parameters()) > 0:
            apart.set_submodule(name, ByImage(parts[name]))
    return apart


class ByImage(nn.Module):
    """What `part` makes of each image of a batch by itself."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *maps: Tensor | None) -> Tensor:
        """As of `part`."""
        count = next(len(one) for one in maps if one is not None)
        images = ([None] * count if one is None else one.split(1) for one in maps)
        return torch.cat([self.part(*image) for image in zip(*images, strict=True)])
