"""Any ViT of timm inside a network: timm's own module, with its prefix tokens, positions, norms and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn

from vitrim.config.network_schema import PATCH, NetworkConfig
from vitrim.config.timm_vits import full_depth
from vitrim.errors import ConfigurationError
from vitrim.models.dry_run import taking_part, without_data
from vitrim.models.vit import SIZES, ViT, init_projection

MIXED_POSITIONS = "timm.rope.freqs"
"""Tensor (2, blocks, heads, frequencies) of rotary positions that are learned for each block."""


class TimmViT(nn.Module):
    """The ViT `name` of timm: maps (B, in_channels, H, W) to tokens on `grid` (height, width).

    Class, distillation and register tokens take part in the blocks and are left out of the maps. The patch size of the
    model is replaced by `patch`; with patch 1, the embedding is a projection of a CNN's features. The head and all
    other parts that the maps do not depend on are removed. Raises ConfigurationError if timm cannot build it.
    """

    blocks_path = "timm.blocks"

    def __init__(self, name: str, in_channels: int, patch: int, grid: tuple[int, int], depth: int) -> None:
        super().__init__()
        self.grid = grid
        self.depth = depth
        self.timm = _create(name, in_channels, patch, grid)
        self.dim: int = self.timm.embed_dim
        self.leave_after: int | None = None
        """Block, from 1, after which the tokens leave for the norm and the decoder; None: after the last one."""
        self._shorten()
        self._remove_unused(name)
        init_projection(self.timm.patch_embed.proj)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return nn.ModuleList(self.timm.blocks) if self.depth else nn.ModuleList()

    def forward(self, features: torch.Tensor, taps: Sequence[int] = ()) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Run the blocks on `features` (B, C, H, W). The result is that of `ViT.forward`."""
        last = max(1, min(self.leave_after or self.depth, self.depth))
        ends = {tap: min(tap, last) for tap in taps}
        wanted = sorted({last, *ends.values()})
        found = self.timm.forward_intermediates(
            features, indices=[block - 1 for block in wanted], stop_early=True, intermediates_only=True
        )
        maps = dict(zip(wanted, found, strict=True))
        tokens = self.timm.norm(maps[last].flatten(2).transpose(1, 2))  # (B, N, dim)
        normed = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self.grid)
        return normed, {tap: maps[end] for tap, end in ends.items()}

    def of_blocks(self, kept: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the tensors outside the blocks that have a part for each block, with the parts of `kept` (from 1)."""
        if not getattr(self.timm, "rope_mixed", False):
            return {}
        frequencies = self.get_parameter(MIXED_POSITIONS).detach()
        return {MIXED_POSITIONS: frequencies[:, [block - 1 for block in kept] or [0]]}

    def _shorten(self) -> None:
        kind = type(self.timm.blocks)
        kept = list(self.timm.blocks)[: self.depth]
        # timm runs at least one block
        self.timm.blocks = kind(kept) if kind is nn.ModuleList else kind(*kept)
        if not kept:
            self.timm.blocks.append(NoBlock())
        for frequencies in self.of_blocks(range(1, self.depth + 1)).values():
            self.timm.rope.freqs = nn.Parameter(frequencies.clone())

    def _remove_unused(self, name: str) -> None:
        """Remove the modules whose parameters have no effect. A parameter outside such a module is not trained."""
        unused = _without_effect(name, with_blocks=True)
        parts = [
            part
            for part, module in self.timm.named_modules()
            if part
            and (inside := {f"timm.{part}.{inner}" for inner, _ in module.named_parameters()})
            and inside <= unused
        ]
        for part in parts:
            if not any(part.startswith(f"{other}.") for other in parts):
                self.timm.set_submodule(part, nn.Identity())
        if not self.depth:  # prefix tokens and rotary positions then have no effect either
            unused = _without_effect(name, with_blocks=False)
        for inner, parameter in self.named_parameters():
            if inner in unused:
                parameter.requires_grad_(False)


class NoBlock(nn.Module):
    """Takes the place of the blocks at depth 0: returns its tokens."""

    def forward(self, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return `tokens`."""
        return tokens


AnyViT = ViT | TimmViT


def make_vit(config: NetworkConfig, in_channels: int, patch: int, grid: tuple[int, int]) -> AnyViT:
    """Make the ViT of a network, on `grid`, for features with `in_channels` channels."""
    if config.vit is not None:
        return TimmViT(config.vit, in_channels, patch, grid, config.depth)
    assert config.size is not None
    return ViT(in_channels, patch, grid, SIZES[config.size], config.depth)


def _create(name: str, in_channels: int, patch: int, grid: tuple[int, int]) -> Any:
    """Make timm's model. On the meta device, a model with tensors outside its state dict is built on the CPU."""
    size = (grid[0] * patch, grid[1] * patch)
    settings = {"num_classes": 0, "img_size": size, "patch_size": patch, "in_chans": in_channels}
    try:
        model = timm.create_model(name, **settings)
        stored = model.state_dict()
        if any(buffer.is_meta and inner not in stored for inner, buffer in model.named_buffers()):
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                model = timm.create_model(name, **settings)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"vit {name} cannot be built for {grid[0]}×{grid[1]} patches: {error}") from error
    return model


@lru_cache(maxsize=64)
def _without_effect(name: str, with_blocks: bool) -> frozenset[str]:
    """Names of the parameters in a `TimmViT` on which its maps do not depend, with all blocks or with none."""
    with without_data(), torch.random.fork_rng(devices=[]):
        vit = _Whole(name, 3, PATCH, (2, 2), full_depth(name) if with_blocks else 0)
        used = set(taking_part(vit, torch.empty(2, 3, 2 * PATCH, 2 * PATCH)))
    return frozenset(inner for inner, _ in vit.named_parameters() if inner not in used)


class _Whole(TimmViT):
    """A `TimmViT` from which nothing is removed."""

    def _remove_unused(self, name: str) -> None:
        pass
