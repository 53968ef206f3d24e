"""TransUNet (Chen et al. 2021; paper, 3.2.1 and figure 1)."""

from __future__ import annotations

import torch
from torch import nn

from vitrim.config.network_schema import NetworkConfig
from vitrim.models.layers import ConvNormAct, UpConvs, init_convolutions, scaled
from vitrim.models.network import Network
from vitrim.models.resnet_stem import ResNetStem
from vitrim.models.timm_vit import AnyViT, make_vit
from vitrim.models.vit import PretrainedViT

HYBRID_VIT = PretrainedViT(
    label="ResNet stem and ViT",
    architecture="vit_base_r50_s16_224",
    hub={"base": "vit_base_r50_s16_224.orig_in21k"},
    google="R50+ViT-B_16",
    patch=1,
    with_stem=True,
)
"""Weights of ResNet stem and ViT, trained together on ImageNet-21k (Dosovitskiy et al. 2021)."""


class TransUNet(Network):
    """A convolutional stem up to 1/16, a transformer on its features, and a decoder with skips from the stem.

    At depth 0 (no blocks), the 1×1 embedding, the position embedding and the LayerNorm remain.
    """

    vit: AnyViT
    pretrained_vit = HYBRID_VIT
    float32_parts = ("stem",)

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.stem = ResNetStem(self.stem_channels, config.width, config.stem)
        half, quarter, eighth, sixteenth = self.stem.channels
        self.vit = make_vit(config, sixteenth, 1, self.token_grid)
        widths = [scaled(channels, config.width) for channels in (512, 256, 128, 64, 16)]
        self.bottleneck = ConvNormAct(self.vit.dim, widths[0], bias=False)
        self.decoder = nn.ModuleList(
            UpConvs(below + skip, out, bias=False)
            for below, skip, out in zip(widths[:-1], (eighth, quarter, half, 0), widths[1:], strict=True)
        )
        self.head = nn.Conv2d(widths[-1], config.num_classes, 3, padding=1)
        for part in (self.bottleneck, self.decoder, self.head):
            init_convolutions(part)

    def segment(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K, H, W) from images (B, stem_channels, H, W)."""
        half, quarter, eighth, sixteenth = self.stem(images)
        tokens, _ = self.vit(sixteenth, taps=())
        x = self.bottleneck(tokens)  # (B, 512, H/16, W/16)
        for convs, skip in zip(self.decoder, (eighth, quarter, half, None), strict=True):
            x = convs(x, skip)
        return self.head(x)
