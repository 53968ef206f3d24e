"""TransUNet's convolutional stem: ResNetV2-50 up to 1/16, in the forms of timm and of the public TransUNet release."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from timm.layers import GroupNormAct, StdConv2d, StdConv2dSame, make_divisible
from timm.models.resnetv2 import ResNetV2
from torch import nn
from torch.nn import functional as F

LAYERS = (3, 4, 9)
"""Number of bottlenecks at 1/4, 1/8 and 1/16.

Dosovitskiy et al. 2021: R50 with the blocks of the fourth stage moved to the third.
"""


class ResNetStem(nn.Module):
    """ResNetV2-50 without its fourth stage, with group norm and weight standardisation (Kolesnikov et al. 2020).

    `form` is "timm" for weights of timm and Google, or "release" for checkpoints of the public TransUNet code. The two
    forms differ in padding, epsilons and the groups of the shortcut, so their outputs differ.
    """

    def __init__(self, in_channels: int, width: float, form: Literal["timm", "release"]) -> None:
        super().__init__()
        self.channels = tuple(make_divisible(channels * width) for channels in (64, 256, 512, 1024))
        """Numbers of channels at 1/2, 1/4, 1/8 and 1/16."""
        release = form == "release"
        self.cnn = ResNetV2(
            layers=LAYERS,
            channels=(256, 512, 1024),
            num_classes=0,
            global_pool="",
            in_chans=in_channels,
            width_factor=width,
            preact=False,
            stem_type="" if release else "same",
            conv_layer=ReleaseStdConv2d if release else partial(StdConv2dSame, eps=1e-8),
            norm_layer=partial(fitting_group_norm, eps=1e-6 if release else 1e-5),
        )
        if release:
            self.cnn.stem.pool = nn.MaxPool2d(3, stride=2)
            for stage in self.cnn.stages:
                conv = stage.blocks[0].downsample.conv
                stage.blocks[0].downsample.norm = GroupNormAct(
                    conv.out_channels, num_groups=conv.out_channels, eps=1e-5, apply_act=False
                )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute features at 1/2, 1/4, 1/8 and 1/16 of images (B, C, H, W). H and W are multiples of 16."""
        features = [self.cnn.stem[:-1](images)]
        x = self.cnn.stem[-1](features[0])
        for stage in self.cnn.stages:
            x = stage(x)
            features.append(x)
        missing = features[0].shape[-1] // 2 - features[1].shape[-1]  # 1 for "release": its pool has no padding
        if missing:
            features[1] = F.pad(features[1], (0, missing, 0, missing))
        return features


class ReleaseStdConv2d(StdConv2d):
    """Weight standardisation with the operations of the release, to reproduce its rounding.

    timm's form (batch norm of the weights) rounds differently. The following norms amplify this to a difference of 2e-5
    in the attention.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = standardised(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def standardised(weight: torch.Tensor) -> torch.Tensor:
    """Scale each kernel of (out, in, h, w) to zero mean and unit deviation, with the rounding of the release."""
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
    return (weight - mean) / torch.sqrt(variance + 1e-5)


def fitting_group_norm(num_channels: int, **settings: Any) -> GroupNormAct:
    """Make timm's group norm with ReLU, with as many groups as possible up to 32 and at least 2 channels per group."""
    groups = next(n for n in range(32, 0, -1) if num_channels % n == 0 and num_channels >= 2 * n)
    return GroupNormAct(num_channels, num_groups=groups, **settings)
