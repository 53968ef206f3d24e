"""The vision transformer inside every network: timm's blocks, without a class token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import nn


@dataclass(frozen=True)
class ViTSize:
    """Width of the tokens and number of heads; the MLP is 4 times as wide."""

    dim: int
    heads: int


SIZES = {
    "micro": ViTSize(128, 4),
    "tiny": ViTSize(192, 3),
    "small": ViTSize(384, 6),
    "base": ViTSize(768, 12),
}
"""tiny, small and base as in Touvron et al. 2021 and Dosovitskiy et al. 2021; micro is for two processor cores."""


@dataclass(frozen=True)
class PretrainedViT:
    """Where a network's ViT can get ImageNet weights: stands beside the code of the network."""

    label: str
    """What is filled, in words."""
    architecture: str
    """timm's name of the architecture at size base."""
    hub: Mapping[str, str]
    """Size to the name under which timm's hub has the weights."""
    google: str
    """Name of the file that Google publishes, for size base."""
    patch: int = 16
    """Pixels, or places of the stem's map, along one side of a patch."""
    with_stem: bool = False
    """Whether the weights fill a convolutional stem too, which then has to be of width 1."""


PLAIN_VIT = PretrainedViT(
    label="ViT",
    architecture="vit_base_patch16_224",
    hub={size: f"vit_{size}_patch16_224.augreg_in21k" for size in ("tiny", "small", "base")},
    google="ViT-B_16",
)
"""ViT on raw patches, trained on ImageNet-21k (Steiner et al. 2022), as the paper's."""


class ViT(nn.Module):
    """Patch embedding, learnt position embedding, pre-norm blocks (paper, equations 1 to 3), LayerNorm.

    Tokens (B, N, dim) lie on a grid of height × width = N, row by row.
    """

    def __init__(self, in_channels: int, patch: int, grid: tuple[int, int], size: ViTSize, depth: int) -> None:
        super().__init__()
        self.grid = grid
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = nn.Conv2d(in_channels, size.dim, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], size.dim))
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(size.dim)
        self.init_weights()

    def init_weights(self) -> None:
        """Linear maps and positions from a truncated normal of deviation 0.02 (as timm), the patch embedding fan in."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        fan_in = self.patch_embed.weight[0].numel()
        nn.init.trunc_normal_(self.patch_embed.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.patch_embed.bias)  # type: ignore[arg-type]
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor, taps: Sequence[int]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Run all blocks on `features` (B, C, H, W).

        Returns the last block's tokens after LayerNorm as a map (B, dim, h, w), and the same form, without LayerNorm,
        of the tokens after each block in `taps` (counted from 1).
        """
        tokens = self.patch_embed(features).flatten(2).transpose(1, 2)  # (B, N, dim)
        tokens = tokens + self.pos_embed
        maps = {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if number in taps:
                maps[number] = self.to_map(tokens)
        return self.to_map(self.norm(tokens)), maps

    def to_map(self, tokens: torch.Tensor) -> torch.Tensor:
        """Lay tokens (B, N, dim) out on their grid (B, dim, h, w)."""
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self.grid)
