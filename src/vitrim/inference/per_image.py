"""Runs the parts of a network with large feature maps image by image, so that the maps stay in the CPU's cache."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import torch
from timm.models.resnetv2 import ResNetStage
from torch import Tensor, nn

from vitrim.models.adapt import Adapted
from vitrim.models.dry_run import run
from vitrim.models.layers import TwoConvs, UpBlocks
from vitrim.models.network import Network

N = TypeVar("N", bound=Network | Adapted)

PARTS = (ResNetStage, TwoConvs, UpBlocks)
"""Parts that can run image by image: several convolutions from one feature map (and a skip) to one feature map."""


def large_maps_by_image(network: N) -> N:
    """Return a copy of `network` in which parts whose feature map has more values than weights run image by image.

    `network` must be in eval mode. Other parts run on the whole batch, because reading their weights for each image
    would cost more. The logits are the same (to rounding) and need less memory. Both networks share their weights.
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
    """Runs `part` on each image of a batch separately."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *maps: Tensor | None) -> Tensor:
        """Return the result of `part` for the whole batch."""
        count = next(len(one) for one in maps if one is not None)
        images = ([None] * count if one is None else one.split(1) for one in maps)
        return torch.cat([self.part(*image) for image in zip(*images, strict=True)])
