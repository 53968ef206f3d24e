"""Transformers with a planted depth: their weights are written by hand, so the attention of each block is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, PATCH = 40, 4, 4
ROW, COLUMN, SQUARE, ONE, BRIGHT = range(WIDTH - 5, WIDTH)
"""Channels of a token that no block changes: row, column, row² + column², the constant 1, and the brightness."""


class PlantedAttention(nn.Module):
    """Attention whose query and key weights are written by hand.

    "local": logits −‖p_i − p_j‖², like a convolution. "global": logits from the content, independent of the position.
    "similar": attention to patches of similar brightness at any position. "uniform": equal weights for all patches.
    """

    def __init__(self, kind: str, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = WIDTH // HEADS
        query, key = torch.zeros(HEADS, size, WIDTH), torch.zeros(HEADS, size, WIDTH)
        if kind == "local":
            query[:, 0, ROW], key[:, 0, ROW] = 2.0, 1.0
            query[:, 1, COLUMN], key[:, 1, COLUMN] = 2.0, 1.0
            query[:, 2, ONE], key[:, 2, SQUARE] = -1.0, 1.0
        elif kind == "global":
            query[:, :, :ROW] = 0.14 * torch.randn(HEADS, size, ROW, generator=generator)
            key[:, :, :ROW] = 0.14 * torch.randn(HEADS, size, ROW, generator=generator)
        elif kind == "similar":
            query[:, 0, BRIGHT], key[:, 0, BRIGHT] = 5.0, 1.0
        out = 0.02 * torch.randn(WIDTH, WIDTH, generator=generator)
        out[ROW:], out[:, ROW:] = 0.0, 0.0
        self.query, self.key = nn.Parameter(query.flatten(0, 1) * size**0.5), nn.Parameter(key.flatten(0, 1))
        self.out = nn.Parameter(out)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            (x @ weight.T).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for weight in (self.query, self.key, torch.eye(WIDTH))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).flatten(-2) @ self.out.T


class PlantedBlock(nn.Module):
    def __init__(self, kind: str, seed: int) -> None:
        super().__init__()
        self.attn = PlantedAttention(kind, seed)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x)


class PlantedViT(nn.Module):
    """A ViT with blocks of the given kinds. Images have one channel, patches 4×4 pixels. There is no class token."""

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(99)
        self.embed = nn.Parameter(torch.randn(ROW, 1, PATCH, PATCH, generator=generator) / PATCH)
        self.blocks = nn.ModuleList(PlantedBlock(kind, seed) for seed, kind in enumerate(kinds))

    def forward(self, images: Tensor) -> Tensor:
        content = F.conv2d(images, self.embed, stride=PATCH)
        rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in content.shape[2:]), indexing="ij")
        place = torch.stack([rows, columns, rows**2 + columns**2, torch.ones_like(rows)])
        bright = F.avg_pool2d(images, PATCH)
        x = torch.cat([content, place.expand(len(images), -1, -1, -1), bright], dim=1)
        x = x.flatten(2).transpose(1, 2)  # (B, N, WIDTH)
        for block in self.blocks:
            x = block(x)
        return x


def planted(local: int, depth: int = 12) -> PlantedViT:
    """Make a ViT whose first `local` blocks attend locally and whose other blocks attend globally."""
    return PlantedViT(["local"] * local + ["global"] * (depth - local))


def noise(count: int, size: int = 32, seed: int = 0) -> Tensor:
    """Images (count, 1, size, size) of white noise."""
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def halves(count: int, size: int = 32) -> Tensor:
    """Images with a bright left half and a dark right half: similar patches are close together."""
    image = torch.ones(count, 1, size, size)
    image[..., size // 2 :] = -1
    return image


def checkerboards(count: int, size: int = 32) -> Tensor:
    """Images whose patches alternate between bright and dark: similar patches are everywhere."""
    place = torch.arange(size) // PATCH
    return (1.0 - 2.0 * ((place[:, None] + place[None]) % 2)).expand(count, 1, size, size)
