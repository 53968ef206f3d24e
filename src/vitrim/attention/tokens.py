"""Which attention is that of an image's patches to each other, and how its tokens lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.attention.capture import AttentionCall, Captured, module_names
from vitrim.errors import InputError
from vitrim.token_grid import find_grid


@dataclass(frozen=True)
class Tokens:
    """How the tokens of a model lie over its images, the same in every block."""

    count: int
    """Tokens of the attention, class and register tokens among them."""
    image_size: tuple[int, int]
    grid: tuple[int, int]
    prefix: int
    """Tokens before the patches."""
    patch: tuple[float, float]
    """Pixels from one patch to the next, along rows and columns."""


def find_tokens(
    call: AttentionCall,
    image_size: tuple[int, int],
    *,
    model: Any = None,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
    patch: float | tuple[float, float] | None = None,
) -> Tokens:
    """How the tokens of this call lie over images of (H, W) pixels; what is given counts, the rest is found out.

    Raises:
        InputError: if the tokens fit no grid.
    """
    count = call.shape[2]
    (rows, columns), prefix = find_grid(count, image_size, model=model, grid=grid, prefix_tokens=prefix_tokens)
    if patch is None:
        patch = (image_size[0] / rows, image_size[1] / columns)
    elif isinstance(patch, (int, float)):
        patch = (float(patch), float(patch))
    return Tokens(count, image_size, (rows, columns), prefix, (float(patch[0]), float(patch[1])))


def own_attention(model: nn.Module, layers: str | Sequence[str] | None) -> Callable[[str], bool]:
    """Whether the attention layer of a name is a block's: inside `model.blocks` if there are such, and not chosen."""
    blocks = getattr(model, "blocks", None)
    if layers is not None or not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
        return lambda layer: True
    names = module_names(model)
    inside = [names.get(id(block)) for block in blocks]
    return lambda layer: any(layer == name or layer.startswith(f"{name}.") for name in inside)


def check_layers(model: nn.Module, layers: str | Sequence[str] | None, captured: Captured) -> None:
    """The attention that was measured must be some, and that of every block of `model.blocks` once.

    Raises:
        InputError: if it is not; a block with a kernel of its own would shift the numbers of those behind it.
    """
    seen = [layer for layer, _ in captured.calls]
    if not seen:
        raise InputError(
            f"none of the attention of {type(model).__name__} is of patches to each other inside its blocks; it is in "
            f"{', '.join(captured.layers)}: say which layers count as blocks with layers="
        )
    blocks = getattr(model, "blocks", None)
    if layers is not None or not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
        return
    names = module_names(model)
    for number, block in enumerate(blocks, 1):
        name = names.get(id(block))
        times = sum(layer == name or layer.startswith(f"{name}.") for layer in seen)
        if times != 1 and any(True for _ in block.parameters()):
            raise InputError(
                f"block {number} of {type(model).__name__} showed attention {times} times, not once: "
                "say which layers count as blocks with layers="
            )


def check_call(call: AttentionCall, images: int, image_size: tuple[int, int], tokens: Tokens | None) -> None:
    """Attention must be of every image's tokens to themselves, over one grid that all blocks and images share.

    Raises:
        InputError: if it is windowed, hierarchical, or to other keys.
    """
    count, _, queries, keys = call.shape
    layer = f"attention layer {call.layer!r}"
    choose = "say which layers to look at with layers="
    if queries != keys:
        raise InputError(
            f"{layer} has {queries} queries and {keys} keys: attention to other or to reduced tokens (hierarchical "
            f"networks) is not measured; {choose}"
        )
    if count != images:
        raise InputError(
            f"{layer} has {count} maps per head for {images} images: windowed attention (as Swin's) is not over the "
            "image's grid and is not measured"
        )
    if tokens is not None and queries != tokens.count:
        raise InputError(
            f"{layer} has {queries} tokens and another one {tokens.count}: attention over grids of several sizes "
            f"(hierarchical networks, images of several sizes) is not measured; {choose}"
        )
    if tokens is not None and image_size != tokens.image_size:
        had, got = ("×".join(str(n) for n in size) for size in (tokens.image_size, image_size))
        raise InputError(f"images of {had} and of {got} pixels: a profile is over images of one size")


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
