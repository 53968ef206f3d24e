"""How far a network sees: the distance beyond which nothing in the image can change what it says about a pixel."""

from __future__ import annotations

import copy

import torch
from torch import nn

NORMALISATION = (nn.GroupNorm, nn.modules.batchnorm._NormBase)
"""Taken out before measuring: some start at zero and hide a branch, some look at the whole image's mean."""


def receptive_reach(network: nn.Module, image_size: tuple[int, int], channels: int = 1, samples: int = 6) -> int:
    """Largest distance in pixels, along rows or columns, from an output pixel to an input pixel that it depends on.

    Found from gradients: those of output pixels near a corner of the image are exactly zero beyond the reach. Weights
    as they are and random images, `samples` of them together, since a maximum or a ReLU hides some paths. A network
    whose reach comes out as nearly the image's size sees everything in it. Group, instance and batch normalisation are
    taken out: where an image's mean and deviation tell nothing, as in the phantom `longrange`, they do not help.
    """
    network = _without_normalisation(copy.deepcopy(network)).double().eval()
    rows, columns = image_size
    generator = torch.Generator().manual_seed(0)
    reach = 0
    for _ in range(samples):
        image = torch.randn(1, channels, rows, columns, generator=generator, dtype=torch.float64).requires_grad_()
        row, column = torch.randint(0, 16, (2,), generator=generator).tolist()
        network(image)[0, :, row, column].sum().backward()
        assert image.grad is not None
        seen = image.grad.abs().sum((0, 1)).nonzero()
        if len(seen):
            reach = max(reach, int((seen - torch.tensor([row, column])).abs().max()))
    return reach


def _without_normalisation(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, NORMALISATION):
            setattr(module, name, nn.Identity())
        else:
            _without_normalisation(child)
    return module
