"""Convolutions that the networks share, and the arithmetic of their widths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import make_divisible
from torch import nn
from torch.nn import functional as F


def scaled(channels: int, width: float) -> int:
    """Channels times `width`, rounded to a multiple of 8; unchanged at width 1.

    Never fewer than 16 (or than `channels`): with 8 in the last layer, whole organs were seen to fall where all are 0.
    """
    return channels if width == 1 else make_divisible(channels * width, min_value=min(16, channels))


class ConvNormAct(nn.Sequential):
    """3×3 convolution, batch norm, ReLU; height and width stay."""

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
    """Twice the height and width by bilinear interpolation, the skip of that size beside it, and two convolutions."""

    def forward(self, input: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """From (B, C, H, W) and a skip (B, S, 2H, 2W) to (B, out, 2H, 2W); `in_channels` is C + S."""
        larger = double_by_interpolation(input)
        return super().forward(larger if skip is None else torch.cat((larger, skip), dim=1))


def double_by_interpolation(images: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) with twice the height and width, bilinear, the corners' pixels aligned."""
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=True)


def double_size(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Transposed convolution 2×2 with stride 2: twice the height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


class UpBlocks(nn.Sequential):
    """Up blocks of UNETR (Hatamizadeh et al. 2022): for each width, twice the size, then 3×3 conv, norm, ReLU."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for out_channels in widths:
            layers += [double_size(in_channels, out_channels), ConvNormAct(out_channels, out_channels)]
            in_channels = out_channels
        super().__init__(*layers)


def init_convolutions(module: nn.Module) -> None:
    """Draw the weights of every convolution in `module` from He's normal distribution (fan in, ReLU); biases to zero.

    A transposed convolution of kernel 2 and stride 2 uses each input once an output, so its fan in is its input width.
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
    """Repeat a single channel (B, 1, H, W) to what the stem takes, (B, channels, H, W)."""
    return images.expand(-1, channels, -1, -1) if images.shape[1] == 1 != channels else images


REDUCTIONS = (2, 4, 8, 16)
"""Scales that the four taps feed, from the first tap to the last: 2 is half the image's size."""


def kept_taps(taps: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Taps of a network with `depth` blocks, from those of the full one: the first at or beyond `depth` moves to it.

    Later ones are gone: (3, 6, 9, 12) at depth 7 becomes (3, 6, 7), the 7 in the place of the 9.
    """
    return (*(tap for tap in taps if tap < depth), depth)
