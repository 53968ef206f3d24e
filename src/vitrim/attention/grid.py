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
    patches = [patch for patch in range(1, min(height, width) + 1) if height % patch == 0 and width % patch == 0]
    grids = {tokens - (height // p) * (width // p): (height // p, width // p) for p in patches}
    guesses = PREFIXES if prefix_tokens is None else (prefix_tokens,)
    for left in guesses if prefix is None else (prefix, *guesses):  # what a model says need not hold in every layer
        if left in grids:
            return _checked(grids[left]), left
    raise InputError(
        f"attention is over {tokens} tokens, which fit no grid of square patches of a {height}×{width} image, "
        f"with {prefix_tokens if prefix_tokens is not None else 'class or register'} tokens before it or without: "
        "say grid=(h, w)"
    )


def _checked(grid: tuple[int, int]) -> tuple[int, int]:
    if grid[0] * grid[1] < 2:
        raise InputError("a grid of one token has no distances: attention needs at least two patches")
    return grid
