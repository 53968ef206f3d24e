"""Finds the self-attention of image patches and the token grid, and computes distances on the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.arguments import positive_number
from vitrim.attention.calls import module_names, title_of
from vitrim.attention.capture import AttentionCall, Captured
from vitrim.errors import InputError
from vitrim.token_grid import find_grid


@dataclass(frozen=True)
class Tokens:
    """Token layout of a model over its images, the same in every block."""

    count: int
    """Number of tokens in the attention, with class and register tokens."""
    image_size: tuple[int, ...]
    """Height and width in pixels; in a volume depth, height and width in voxels."""
    grid: tuple[int, ...]
    """Rows and columns of patches; in a volume layers, rows and columns."""
    prefix: int
    """Number of class and register tokens before the patches."""
    patch: tuple[float, ...]
    """Pixels from one patch to the next, along each axis of the grid."""


def find_tokens(
    call: AttentionCall,
    image_size: tuple[int, ...],
    *,
    model: Any = None,
    grid: tuple[int, ...] | None = None,
    prefix_tokens: int | None = None,
    patch: float | tuple[float, ...] | None = None,
) -> Tokens:
    """Find the token layout of this call over images of (H, W) pixels, or (D, H, W) voxels.

    Arguments that are not given are found.

    Raises:
        InputError: if the tokens fit no grid, or do not fit the given grid.
    """
    count = call.shape[2]
    if grid is None:
        _check_size(model, image_size)
    found, prefix = find_grid(count, image_size, model=model, grid=grid, prefix_tokens=prefix_tokens)
    if patch is None:
        patch = tuple(pixels / patches for pixels, patches in zip(image_size, found, strict=True))
    elif isinstance(patch, (tuple, list)) and len(patch) == len(found):
        patch = tuple(positive_number(step, "patch") for step in patch)
    else:
        patch = (positive_number(patch, "patch"),) * len(found)
    return Tokens(count, image_size, found, prefix, patch)


def _check_size(model: Any, image_size: tuple[int, ...]) -> None:
    """Raise InputError for an adapted model whose token grid is that of images of another size."""
    example = getattr(model, "example", None)
    if isinstance(example, Tensor) and tuple(example.shape[2:]) != image_size:
        had, got = ("×".join(str(n) for n in size) for size in (example.shape[2:], image_size))
        shape = ", ".join(str(n) for n in (2, example.shape[1], *image_size))
        raise InputError(
            f"{title_of(model)} was adapted for images of {had}, these are of {got}: give vitrim.adapt the size, "
            f"example=torch.zeros({shape})"
        )


def own_attention(model: nn.Module, layers: str | Sequence[str] | None) -> Callable[[str], bool]:
    """Return a function that takes the name of an attention layer and returns True if the layer belongs to a block.

    If `layers` is None and the model has `blocks`, only layers inside `blocks` belong to a block. Otherwise all do.
    """
    blocks = getattr(model, "blocks", None)
    if layers is not None or not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
        return lambda layer: True
    names = module_names(model)
    inside = [names.get(id(block)) for block in blocks]
    return lambda layer: any(layer == name or layer.startswith(f"{name}.") for name in inside)


def check_layers(model: nn.Module, layers: str | Sequence[str] | None, captured: Captured) -> None:
    """Check that attention was measured, and exactly once in every block of `model.blocks`.

    A block whose attention cannot be captured (a custom kernel) would shift the numbers of the later blocks.

    Raises:
        InputError: if no attention was measured, or not exactly once in a block.
    """
    seen = [layer for layer, _ in captured.calls]
    if not seen:
        raise InputError(
            f"{title_of(model)} has no self-attention of patches in the layers that count as blocks; it has "
            f"attention in {', '.join(captured.layers)}: choose the layers that count as blocks with layers="
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
                f"{times} attention calls were measured in block {number} of {title_of(model)}, not 1: "
                "choose the layers that count as blocks with layers="
            )


def check_call(call: AttentionCall, images: int, image_size: tuple[int, ...], tokens: Tokens | None) -> None:
    """Check that a call is self-attention over all tokens of each image, on one grid for all blocks and images.

    Raises:
        InputError: if the attention is windowed, hierarchical, or to other keys, or if the image sizes differ.
    """
    count, _, queries, keys = call.shape
    layer = f"attention layer {call.layer!r}"
    choose = "choose the layers to measure with layers="
    if queries != keys:
        raise InputError(
            f"{layer} has {queries} queries and {keys} keys: cross-attention and attention to reduced tokens "
            f"(hierarchical networks) are not measured; {choose}"
        )
    if count != images:
        raise InputError(
            f"{layer} has {count} maps per head for {images} images: windowed attention (as in Swin) does not cover "
            "the whole image and is not measured"
        )
    if tokens is not None and queries != tokens.count:
        raise InputError(
            f"{layer} has {queries} tokens and another one {tokens.count}: attention over grids of several sizes "
            f"(hierarchical networks, images of several sizes) is not measured; {choose}"
        )
    if tokens is not None and image_size != tokens.image_size:
        had, got = ("×".join(str(n) for n in size) for size in (tokens.image_size, image_size))
        raise InputError(f"images of {had} and of {got} pixels: a profile needs images of one size")


def positions(grid: tuple[int, ...]) -> Tensor:
    """Row and column of each of the N = h · w patches, row by row: (N, 2) float64, in units of one patch.

    In a volume: layer, row and column of each of the d · h · w patches, (N, 3).
    """
    axes = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], dim=1).double()


def distances(grid: tuple[int, ...], step: tuple[float, ...] | None = None) -> Tensor:
    """Euclidean distance between the centres of all pairs of patches, (N, N) float64.

    `step` is the distance from one patch to the next along each axis of the grid, by default 1. It sets the unit: for
    patches of 16 × 16 pixels, (1, 1) gives patches, (16, 16) pixels, and (16 · row_mm, 16 · column_mm) mm.
    """
    p = positions(grid)
    if step is not None:
        p = p * torch.tensor(step, dtype=torch.float64)
    return (p[:, None] - p[None]).square().sum(dim=-1).sqrt()


def neighbours(grid: tuple[int, ...]) -> Tensor:
    """1.0 if two patches touch, also at a corner, else 0.0: (N, N) float64. A patch is not its own neighbour."""
    p = positions(grid)
    return ((p[:, None] - p[None]).abs().amax(dim=-1) == 1).double()


def mean_distance(grid: tuple[int, ...]) -> float:
    """Attention distance of uniform attention, in patches: D_uniform = mean_ij ‖p_i − p_j‖."""
    return float(distances(grid).mean())
