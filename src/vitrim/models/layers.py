"""Convolution layers that the networks share, and functions for channel numbers and taps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from timm.layers import make_divisible
from torch import nn
from torch.nn import functional as F

from vitrim.config.names import DecoderForm


def scaled(channels: int, width: float) -> int:
    """Channels times `width`, rounded to a multiple of 8; unchanged at width 1.

    The result is at least 16 (or `channels` if that is smaller). With 8 channels in the last layer, whole organs were
    lost in tests because all 8 values were 0 there.
    """
    return channels if width == 1 else make_divisible(channels * width, min_value=min(16, channels))


class ConvNormAct(nn.Sequential):
    """3×3 convolution, batch norm, ReLU. Height and width do not change."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class TwoConvs(nn.Sequential):
    """Two 3×3 convolutions, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, bias),
            ConvNormAct(out_channels, out_channels, bias),
        )


class UpConvs(TwoConvs):
    """Doubles height and width by bilinear interpolation, concatenates the skip features, applies two convolutions."""

    def forward(self, input: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """From (B, C, H, W) and a skip (B, S, 2H, 2W) to (B, out, 2H, 2W); `in_channels` is C + S."""
        larger = double_by_interpolation(input)
        return super().forward(larger if skip is None else torch.cat((larger, skip), dim=1))


def double_by_interpolation(images: torch.Tensor) -> torch.Tensor:
    """Double the height and width of images (B, C, H, W) by bilinear interpolation with aligned corner pixels."""
    if images.is_cuda and images.requires_grad and torch.is_grad_enabled():
        return DoubleByInterpolation.apply(images)
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=True)


class DoubleByInterpolation(torch.autograd.Function):
    """Bilinear doubling whose gradient on a GPU is the same in every run and quick.

    torch's own gradient adds in random order; with deterministic algorithms it is replaced by a slow one. The gradient
    is a product with one fixed matrix for the rows and one for the columns.
    """

    @staticmethod
    def forward(images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        # The operator itself, because with deterministic algorithms F.interpolate avoids it.
        return torch.ops.aten.upsample_bilinear2d(images, [2 * height, 2 * width], True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        ctx.size = inputs[0].shape[2:]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = gradient.shape
        rows, columns = (_doubling(length, gradient.device, gradient.dtype) for length in ctx.size)
        # (B, 2H, 2W, C) as it lies in memory with channels last: both products then need no copy
        last = gradient.permute(0, 2, 3, 1)
        across = columns.T @ last.reshape(batch * height, width, channels)  # (B · 2H, W, C)
        down = rows.T @ across.reshape(batch, height, -1)  # (B, H, W · C)
        return down.reshape(batch, height // 2, width // 2, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _doubling(length: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix (2·length, length) that doubles a line of pixels, end pixels aligned."""
    lines = torch.eye(length, dtype=torch.float64)[:, None]  # (pixel, 1, length)
    doubled = F.interpolate(lines, size=2 * length, mode="linear", align_corners=True)
    return doubled[:, 0].T.contiguous().to(device, dtype)


def double_size(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Make a 2×2 transposed convolution with stride 2. It doubles height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


class UpBlocks(nn.Sequential):
    """Up blocks of UNETR (Hatamizadeh et al. 2022). Each width doubles the size, then 3×3 convolution, norm, ReLU."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for out_channels in widths:
            layers += [double_size(in_channels, out_channels), ConvNormAct(out_channels, out_channels)]
            in_channels = out_channels
        super().__init__(*layers)


def init_convolutions(module: nn.Module) -> None:
    """Draw the weights of every convolution in `module` from He's normal distribution (fan in, ReLU). Set biases to 0.

    In a transposed convolution with kernel 2 and stride 2, each output pixel uses one input pixel, so the fan in is the
    number of input channels.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def repeat_gray(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Repeat a single channel (B, 1, H, W) to the channels of the stem, (B, channels, H, W)."""
    return images.expand(-1, channels, -1, -1) if images.shape[1] == 1 != channels else images


REDUCTIONS = (2, 4, 8, 16)
"""Scales that the four taps feed, from the first tap to the last. 2 means half the image size."""


def kept_taps(taps: tuple[int, ...], depth: int, decoder: DecoderForm = "paper") -> tuple[int, ...]:
    """Compute the taps of a network with `depth` blocks from the taps of the full network.

    With a whole decoder every tap stays; those beyond `depth` move to `depth`. As in the paper:

    The first tap at or beyond `depth` moves to `depth`. Later taps are removed. At depth 7, (3, 6, 9, 12) becomes
    (3, 6, 7): block 7 takes the place of block 9.
    """
    if decoder == "whole":
        return tuple(min(tap, depth) for tap in taps)
    return (*(tap for tap in taps if tap < depth), depth)
