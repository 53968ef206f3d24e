"""2D CATS (Li et al. 2022 in two dimensions; paper, 3.2.2, figures 2 and 6)."""

from __future__ import annotations

import torch
from torch import nn

from vitrim.config.network_schema import PATCH, NetworkConfig
from vitrim.models.backbones import create_backbone
from vitrim.models.layers import REDUCTIONS, TwoConvs, UpBlocks, double_size, init_convolutions, kept_taps, scaled
from vitrim.models.network import Network
from vitrim.models.timm_vit import make_vit


class CATS2D(Network):
    """A CNN and a parallel transformer on raw patches. Its tokens are added to the CNN's features at four scales.

    Truncation removes the taps beyond the depth and their up blocks. The last kept block feeds 1/16. At depth 0 only
    the CNN U-Net remains.
    """

    pretrained_cnn = "cnn"
    feeds_scales = True
    float32_parts = ("cnn",)

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.cnn, channels = create_backbone(config.backbone, self.stem_channels, config.width, config.image_size)
        at = dict(zip(REDUCTIONS, channels, strict=True))
        widths = {reduction: scaled(64 * reduction, config.width) for reduction in (2, 4, 8)}
        self.vit = make_vit(config, self.stem_channels, PATCH, self.token_grid) if config.depth else None
        self.lifts = nn.ModuleDict()
        dim = 0 if self.vit is None else self.vit.dim
        for reduction in self.tap_of_scale:
            up = [widths[r] for r in (8, 4, 2) if r >= reduction]
            out = up[-1] if up else dim
            fit = [nn.Conv2d(out, at[reduction], 1)] if out != at[reduction] or reduction == PATCH else []
            self.lifts[str(reduction)] = nn.Sequential(UpBlocks(dim, up), *fit)
        self.ups = nn.ModuleDict()
        self.convs = nn.ModuleDict()
        below = at[16]
        for reduction, out in ((8, 256), (4, 128), (2, 64)):
            self.ups[str(reduction)] = double_size(below, below)
            self.convs[str(reduction)] = TwoConvs(below + at[reduction], scaled(out, config.width))
            below = scaled(out, config.width)
        self.full_size = nn.Sequential(double_size(below, below), TwoConvs(below, scaled(32, config.width)))
        self.head = nn.Conv2d(scaled(32, config.width), config.num_classes, 3, padding=1)
        for part in (self.lifts, self.ups, self.convs, self.full_size, self.head):
            init_convolutions(part)

    @property
    def tap_of_scale(self) -> dict[int, int]:
        """Block, from 1, that feeds each scale. At depth 7, blocks 3, 6, 7 feed 1/2, 1/4, 1/8; 7 also feeds 1/16."""
        if not self.depth:
            return {}
        taps = kept_taps(self.config.taps, self.depth, self.config.decoder)[: len(REDUCTIONS) - 1]
        return {**dict(zip(REDUCTIONS, taps, strict=False)), PATCH: self.depth}

    def segment(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K, H, W) from images (B, stem_channels, H, W)."""
        features = dict(zip(REDUCTIONS, self.cnn(images), strict=True))
        if self.vit is not None:
            last, maps = self.vit(images, self.taps)
            for reduction, block in self.tap_of_scale.items():
                tokens = last if reduction == PATCH else maps[block]
                features[reduction] = features[reduction] + self.lifts[str(reduction)](tokens)
        x = features[PATCH]
        for reduction in (8, 4, 2):
            x = self.ups[str(reduction)](x)
            x = self.convs[str(reduction)](torch.cat((x, features[reduction]), dim=1))
        return self.head(self.full_size(x))
