"""Raw attention maps of one image (paper, 3.3.1, 3.7.1, figures 4 and 5), and their rollout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.measures import rollout
from vitrim.attention.running import as_written, run_captured
from vitrim.attention.tokens import Tokens, check_call, check_layers, find_tokens, own_attention
from vitrim.errors import InputError


def raw_maps(
    model: nn.Module,
    image: Tensor,
    blocks: Sequence[int] | None = (1, 2, 3, 6),
    *,
    heads: bool = False,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
    layers: str | Sequence[str] | None = None,
) -> dict[int, np.ndarray]:
    """Attention of one image (1, C, H, W) in the chosen blocks (from 1; all with None), by block.

    Each is (N, N) float32, averaged over heads, or (heads, N, N) with `heads`; row i is what patch i attends to,
    patches row by row over the grid, rows sum to 1; class and register tokens are dropped. Blocks that the model does
    not have are left out, as those of a truncated network.

    Raises:
        InputError: if the model has none of the blocks, and as `profile_attention`.
    """
    maps: dict[int, np.ndarray] = {}

    def take(block: int, weights: Tensor) -> None:
        if blocks is None or block in blocks:
            maps[block] = (weights if heads else weights.mean(dim=0)).float().cpu().numpy()

    _run(model, image, take, grid, prefix_tokens, layers)
    if not maps:
        raise InputError(f"the model has none of the blocks {', '.join(str(block) for block in blocks or ())}")
    return maps


def rollout_maps(
    model: nn.Module,
    image: Tensor,
    *,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
    layers: str | Sequence[str] | None = None,
) -> dict[int, np.ndarray]:
    """Attention rollout of one image (1, C, H, W) after each block, (N, N) float32 (Abnar & Zuidema 2020)."""
    maps: dict[int, np.ndarray] = {}
    rolled: Tensor | None = None

    def take(block: int, weights: Tensor) -> None:
        nonlocal rolled
        rolled = rollout(weights.mean(dim=0), rolled)
        maps[block] = rolled.float().cpu().numpy()

    _run(model, image, take, grid, prefix_tokens, layers)
    return maps


def tokens_of(
    model: nn.Module,
    image: Tensor,
    *,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
    layers: str | Sequence[str] | None = None,
) -> Tokens:
    """How the tokens of the model lie over this image (1, C, H, W): grid, tokens before the patches, patch size."""
    return _run(model, image, lambda block, weights: None, grid, prefix_tokens, layers)


def _run(
    model: nn.Module,
    image: Tensor,
    take: Callable[[int, Tensor], None],
    grid: tuple[int, int] | None,
    prefix_tokens: int | None,
    layers: str | Sequence[str] | None,
) -> Tokens:
    """Run the model over the image and give each block's number and weights (heads, N, N) to `take`."""
    if image.ndim != 4 or len(image) != 1:
        raise InputError(f"maps are of one image (1, channels, height, width); got {tuple(image.shape)}")
    model, size = as_written(model), (int(image.shape[-2]), int(image.shape[-1]))
    wanted = own_attention(model, layers)
    tokens: Tokens | None = None
    block = 0

    def reduce(call: AttentionCall) -> bool | None:
        nonlocal tokens, block
        if not wanted(call.layer) or call.shape[2] < call.shape[3]:
            return None
        check_call(call, 1, size, tokens)
        tokens = tokens or find_tokens(call, size, model=model, grid=grid, prefix_tokens=prefix_tokens)
        block += 1
        take(block, call.patches(tokens.prefix)[0])
        return True

    captured = run_captured(model, image, reduce, layers)
    check_layers(model, layers, captured)
    assert tokens is not None
    return tokens
