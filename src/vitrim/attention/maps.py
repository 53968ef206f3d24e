"""Raw attention maps of one image (paper, 3.3.1, 3.7.1, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall
from vitrim.attention.grid import find_grid, patches_only
from vitrim.attention.running import run_captured
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
    not have are left out, as those of a truncated network; InputError if it has none of them.
    """
    if image.ndim != 4 or len(image) != 1:
        raise InputError(f"raw maps are of one image (1, channels, height, width); got {tuple(image.shape)}")
    wanted = None if blocks is None else set(blocks)

    def reduce(call: AttentionCall) -> np.ndarray | bool:
        if wanted is not None and call.index + 1 not in wanted:
            return False
        size = (int(image.shape[-2]), int(image.shape[-1]))
        _, prefix = find_grid(call.weights.shape[-1], size, model=model, grid=grid, prefix_tokens=prefix_tokens)
        weights = patches_only(call.weights, prefix)[0]
        return (weights if heads else weights.mean(dim=0)).float().cpu().numpy()

    results = run_captured(model, image, reduce, layers).results
    maps = {block: result for block, result in enumerate(results, 1) if isinstance(result, np.ndarray)}
    if not maps:
        raise InputError(f"the model has {len(results)} blocks: none of {sorted(wanted or ())} is there")
    return maps
