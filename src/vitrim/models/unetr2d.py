"""2D UNETR (Hatamizadeh et al. 2022 in two dimensions; paper, 3.2.3, figures 3 and 7)."""

from __future__ import annotations

import torch
from torch import nn

from vitrim.config.names import SHALLOWEST
from vitrim.config.network_schema import PATCH, NetworkConfig
from vitrim.models.layers import REDUCTIONS, TwoConvs, UpBlocks, double_size, init_convolutions, kept_taps, scaled
from vitrim.models.network import Network
from vitrim.models.timm_vit import AnyViT, make_vit


class UNETR2D(Network):
    """A transformer on raw patches. Four of its blocks feed a decoder. An image branch feeds the decoder's last stage.

    After truncation, the decoder starts at the deepest remaining tap. The stages below it are removed, and also the
    inputs of the next stage's first kernel that came from them. With `decoder: whole` all stages stay.
    """

    vit: AnyViT
    shallowest = SHALLOWEST["unetr2d"]
    feeds_scales = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.vit = make_vit(config, self.stem_channels, PATCH, self.token_grid)
        widths = {reduction: scaled(64 * reduction, config.width) for reduction in (1, 2, 4, 8)}
        deepest = max(self.tap_of_scale)
        self.lifts = nn.ModuleDict()
        self.convs = nn.ModuleDict()
        self.ups = nn.ModuleDict()
        for reduction in self.tap_of_scale:
            if reduction == PATCH:
                self.lifts[str(reduction)] = double_size(self.vit.dim, widths[8])
                continue
            out = widths[reduction]
            self.lifts[str(reduction)] = UpBlocks(self.vit.dim, [widths[r] for r in (8, 4, 2) if r >= reduction])
            self.convs[str(reduction)] = TwoConvs(out if reduction == deepest else 2 * out, out)
            self.ups[str(reduction)] = double_size(out, widths[reduction // 2])
        self.image = TwoConvs(self.stem_channels, widths[1])
        self.merge = TwoConvs(2 * widths[1], widths[1])
        self.head = nn.Conv2d(widths[1], config.num_classes, 1)
        for part in (self.lifts, self.convs, self.ups, self.image, self.merge, self.head):
            init_convolutions(part)

    @property
    def tap_of_scale(self) -> dict[int, int]:
        """Block, from 1, that feeds each scale. At depth 7, blocks 3, 6 and 7 feed 1/2, 1/4 and 1/8.

        With a whole decoder, block 7 also feeds 1/16.
        """
        return dict(zip(REDUCTIONS, kept_taps(self.config.taps, self.depth, self.config.decoder), strict=False))

    def segment(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K, H, W) from images (B, stem_channels, H, W)."""
        skip = self.image(images)  # before the blocks, so that the exchange curve computes it once
        last, maps = self.vit(images, self.taps)
        deepest = max(self.tap_of_scale)
        below: tuple[torch.Tensor, ...] = ()
        for reduction in sorted(self.tap_of_scale, reverse=True):
            tokens = last if reduction == deepest else maps[self.tap_of_scale[reduction]]
            x = self.lifts[str(reduction)](tokens)
            if reduction != PATCH:
                x = self.convs[str(reduction)](torch.cat((*below, x), dim=1))
                x = self.ups[str(reduction)](x)
            below = (x,)
        return self.head(self.merge(torch.cat((*below, skip), dim=1)))
