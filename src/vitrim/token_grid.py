"""Where tokens lie over an image: the one place that finds a token grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vitrim.errors import InputError

PREFIXES = (0, 1, 2, 4, 5, 8, 9)
"""Numbers of tokens before the patches that are tried: none; class; class and distillation; 4 or 8 registers."""


def find_grid(
    tokens: int,
    image_size: Sequence[int],
    *,
    model: Any = None,
    grid: Sequence[int] | None = None,
    prefix_tokens: int | None = None,
) -> tuple[tuple[int, ...], int]:
    """Find the token grid, and the number of class and register tokens before it, for `tokens` tokens of one image.

    In this order: what is given; what the model says of itself (`token_grid`, `num_prefix_tokens`); the grid of square
    patches that tile the image and leave over as many tokens as class and register tokens make. `image_size` is
    (H, W), or (D, H, W) for a volume; the grid has as many numbers.

    Raises InputError if the tokens fit no grid, or not the one that is given.
    """
    given = grid or getattr(model, "token_grid", None)
    if given is not None:
        found = tuple(int(n) for n in given)
        left = tokens - math.prod(found)
        if min(found) < 1 or left < 0 or (prefix_tokens is not None and left != prefix_tokens):
            extra = f" and {prefix_tokens} tokens before it" if prefix_tokens else ""
            raise InputError(f"attention is over {tokens} tokens, which is not a grid of {_text(found)}{extra}")
        return _checked(found), left
    said = getattr(model, "num_prefix_tokens", None)
    guesses = PREFIXES if prefix_tokens is None else (prefix_tokens,)
    # what a model says of itself need not hold in every layer
    for prefix in guesses if said is None or prefix_tokens is not None else (said, *guesses):
        if (tiling := _tiling(tokens - prefix, image_size)) is not None:
            return _checked(tiling), prefix
    raise InputError(
        f"{tokens} tokens fit no grid of square patches of a {_text(image_size)} image, "
        f"with {prefix_tokens if prefix_tokens is not None else 'class or register'} tokens before it or without: "
        "give the grid"
    )


def _tiling(patches: int, image_size: Sequence[int]) -> tuple[int, ...] | None:
    """The grid of `patches` square patches that tile the image; None if there is none."""
    if patches < 1:
        return None
    side = round((math.prod(image_size) / patches) ** (1 / len(image_size)))
    if side < 1 or any(n % side for n in image_size):
        return None
    grid = tuple(n // side for n in image_size)
    return grid if math.prod(grid) == patches else None


def _checked(grid: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(grid) < 2:
        raise InputError("a grid of one token has no distances: attention needs at least two patches")
    return grid


def _text(size: Sequence[int]) -> str:
    return "×".join(str(n) for n in size)
