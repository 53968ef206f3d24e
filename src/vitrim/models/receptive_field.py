"""Measures the reach of a network: the largest distance at which an input pixel can change an output pixel."""

from __future__ import annotations

import copy

import torch
from torch import nn

NORMALISATION = (nn.GroupNorm, nn.modules.batchnorm._NormBase)
"""Layers that are removed before the measurement. Some start at zero and hide a branch, others use the mean of the
whole image."""


def receptive_reach(network: nn.Module, image_size: tuple[int, int], channels: int = 1, samples: int = 6) -> int:
    """Measure the largest distance from an output pixel to an input pixel that it depends on.

    The distance is in pixels, along rows or columns. The gradient of an output pixel near a corner of the image is
    exactly zero beyond the reach. The weights do not change. The result is the maximum over `samples` random images,
    because max pooling and ReLU hide some paths in a single image. If the reach is nearly the image size, the network
    uses the whole image. Group, instance and batch normalisation are removed: they only add the mean and deviation of
    the image, which give no information in the phantom `longrange`.
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
