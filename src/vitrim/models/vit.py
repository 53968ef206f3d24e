"""vitrim's own vision transformer (ViT): timm's blocks, without a class token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import nn


@dataclass(frozen=True)
class ViTSize:
    """Width of the tokens and number of heads. The MLP is 4 times as wide as the tokens."""

    dim: int
    heads: int


SIZES = {
    "micro": ViTSize(128, 4),
    "tiny": ViTSize(192, 3),
    "small": ViTSize(384, 6),
    "base": ViTSize(768, 12),
}
"""tiny, small and base are as in Touvron et al. 2021 and Dosovitskiy et al. 2021. micro is for tests on two CPU cores.
"""


@dataclass(frozen=True)
class PretrainedViT:
    """Published ImageNet weights for the ViT of a network. Each network defines its own."""

    label: str
    """Name of the filled part in messages."""
    architecture: str
    """timm's name of the architecture at size base."""
    hub: Mapping[str, str]
    """Name of the weights in timm's hub, by ViT size."""
    google: str
    """Name of Google's weights file for size base."""
    patch: int = 16
    """Side length of a patch in pixels, or in positions of the stem's feature map."""
    with_stem: bool = False
    """True if the weights also fill a convolutional stem. The stem must then have width 1."""


PLAIN_VIT = PretrainedViT(
    label="ViT",
    architecture="vit_base_patch16_224",
    hub={size: f"vit_{size}_patch16_224.augreg_in21k" for size in ("tiny", "small", "base")},
    google="ViT-B_16",
)
"""Weights of a ViT on raw patches, trained on ImageNet-21k (Steiner et al. 2022), as in the paper."""


class ViT(nn.Module):
    """Patch embedding, learned position embedding, pre-norm blocks (paper, equations 1 to 3) and LayerNorm.

    The N tokens (B, N, dim) are in the order of the grid (height × width = N), row by row.
    """

    blocks_path = "blocks"
    """Dotted name of the list of blocks inside the ViT."""

    def __init__(self, in_channels: int, patch: int, grid: tuple[int, int], size: ViTSize, depth: int) -> None:
        super().__init__()
        self.grid = grid
        self.dim = size.dim
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = nn.Conv2d(in_channels, size.dim, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], size.dim))
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(size.dim)
        self.leave_after: int | None = None
        """Block, from 1, after which the tokens leave for the norm and the decoder; None: after the last one."""
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the weights of linear layers, positions and patch embedding from truncated normal distributions.

        The deviation is 1/√(fan in) for the patch embedding and 0.02 for positions. For linear layers it is 0.02 at
        size base (as in timm). Narrower tokens get more, so that a layer's output has the same variance at every size:
        with 0.02, a micro transformer learns much later. Biases are 0.
        """
        std = 0.02 * (SIZES["base"].dim / self.pos_embed.shape[-1]) ** 0.5
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        init_projection(self.patch_embed)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor, taps: Sequence[int]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Run all blocks on `features` (B, C, H, W).

        Returns the tokens of the last block after LayerNorm as a map (B, dim, h, w). Also returns, for each block in
        `taps` (counted from 1), the map of its tokens without LayerNorm.
        """
        tokens = self.patch_embed(features).flatten(2).transpose(1, 2)  # (B, N, dim)
        tokens = tokens + self.pos_embed
        maps = {}
        for number, block in enumerate(self.blocks, start=1):
            if self.leave_after is None or number <= self.leave_after:
                tokens = block(tokens)
            if number in taps:
                maps[number] = self.to_map(tokens)
        return self.to_map(self.norm(tokens)), maps

    def to_map(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reshape tokens (B, N, dim) to their grid, (B, dim, h, w)."""
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self.grid)


def init_projection(embedding: nn.Conv2d) -> None:
    """Draw the weights of a patch embedding from a truncated normal distribution of deviation 1/√(fan in). No bias."""
    nn.init.trunc_normal_(embedding.weight, std=embedding.weight[0].numel() ** -0.5)
    if embedding.bias is not None:
        nn.init.zeros_(embedding.bias)
