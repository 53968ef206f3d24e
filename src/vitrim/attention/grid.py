"""Where tokens lie: the token grid, the class and register tokens before it, and distances between patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitrim.errors import InputError

PREFIXES = (0, 1, 2, 4, 5, 8, 9)
"""Numbers of tokens before the patches that are guessed: none, class, class and distillation, 4 or 8 registers."""


def positions(grid: tuple[int, int]) -> Tensor:
    """Row and column of each of the N = h · w patches, (N, 2) float64, in patch units, row by row."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=1).double()


def distances(grid: tuple[int, int], step: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Euclidean distance between the centres of all pairs of patches, (N, N) float64.

    `step` is the way from one patch to the next along rows and columns, in the unit wanted: (1, 1) for patches,
    (16, 16) for pixels, (16 · row_mm, 16 · column_mm) for mm.
    """
    p = positions(grid) * torch.tensor(step, dtype=torch.float64)
    return (p[:, None] - p[None]).square().sum(dim=-1).sqrt()


def neighbours(grid: tuple[int, int]) -> Tensor:
    """1.0 where two patches touch, by a side or a corner, (N, N) float64; 0.0 for a patch and itself."""
    p = positions(grid)
    return ((p[:, None] - p[None]).abs().amax(dim=-1) == 1).double()


def mean_distance(grid: tuple[int, int]) -> float:
    """Mean distance, in patches, under uniform attention: mean_ij ‖p_i − p_j‖ (D_uniform)."""
    return float(distances(grid).mean())


def find_grid(
    tokens: int,
    image_size: tuple[int, int],
    *,
    model: Any = None,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
) -> tuple[tuple[int, int], int]:
    """Token grid (h, w) and number of tokens before it, for attention over `tokens` tokens of an image (H, W).

    What is given counts; then what the model says of itself (`token_grid`, `num_prefix_tokens`); then the square
    patches that divide the image and leave over as many tokens as class and register tokens make.

    Raises:
        InputError: if the tokens fit no grid, or not the one given.
    """
    grid = grid or getattr(model, "token_grid", None)
    prefix = prefix_tokens if prefix_tokens is not None else getattr(model, "num_prefix_tokens", None)
    if grid is not None:
        rows, columns = int(grid[0]), int(grid[1])
        left = tokens - rows * columns
        if rows < 1 or columns < 1 or left < 0 or (prefix_tokens is not None and left != prefix_tokens):
            extra = f" and {prefix_tokens} tokens before it" if prefix_tokens else ""
            raise InputError(f"attention is over {tokens} tokens, which is not a grid of {rows}×{columns}{extra}")
        return _checked((rows, columns)), left
    height, width = image_size
    fits = []
    for patch in range(1, min(height, width) + 1):
        if height % patch or width % patch:
            continue
        rows, columns = height // patch, width // patch
        left = tokens - rows * columns
        if left == prefix or (prefix is None and left in PREFIXES):
            fits.append((left, (rows, columns)))
    if not fits:
        raise InputError(
            f"attention is over {tokens} tokens, which fit no grid of square patches of a {height}×{width} image"
            f"{f' with {prefix} tokens before it' if prefix is not None else ' with class or register tokens'}: "
            "say grid=(h, w)"
        )
    left, found = min(fits)
    return _checked(found), left


def _checked(grid: tuple[int, int]) -> tuple[int, int]:
    if grid[0] * grid[1] < 2:
        raise InputError("a grid of one token has no distances: attention needs at least two patches")
    return grid


def patches_only(weights: Tensor, prefix_tokens: int) -> Tensor:
    """Drop the tokens before the patches and renormalise the rows: (..., P + N, P + N) to (..., N, N).

    A query that attended only to dropped tokens keeps a row of zeros divided by its smallest positive number: zeros.
    """
    if prefix_tokens == 0:
        return weights
    weights = weights[..., prefix_tokens:, prefix_tokens:]
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
