"""The vision transformers of timm that a network can hold: depth, width and heads of each, by timm's name."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from vitrim.config.names import FULL_DEPTH

SIDE = 16
"""Side of a patch in pixels, in the trial run of a ViT."""

GRID = (8, 16)
"""Rows and columns of patches in the trial run."""

REFUSED = {
    "convit": "its class token joins only before the last blocks",
    "tnt": "its blocks also run on the pixels inside each patch",
    "vision_transformer_hybrid": "a CNN stands before its blocks",
    "vitamin": "a CNN stands before its blocks",
    "xcit": "its attention is over channels, not over patches",
}
"""Modules of timm whose models have a list of blocks, but not attention over the same patches in each."""

NO_LIST = (
    "it has no list of transformer blocks on one grid of patches; hierarchical models such as Swin have several grids, "
    "and CNNs have no patches"
)


@dataclass(frozen=True)
class TimmViT:
    """What a network has to know of a ViT before it is built."""

    name: str
    """timm's name, with the tag of the weights if one was given."""
    depth: int
    """Number of transformer blocks."""
    dim: int
    """Width of the tokens."""
    heads: int | None
    """Number of attention heads; None if the blocks do not state one number."""


def full_depth(vit: str | None) -> int:
    """Return the number of blocks of a full network: that of timm's ViT, or 12. Raises ValueError as `timm_vit`."""
    return FULL_DEPTH if vit is None else timm_vit(vit).depth


def spread_taps(depth: int) -> tuple[int, int, int, int]:
    """Return the blocks, from 1, that feed the four scales of a decoder: every quarter (3, 6, 9, 12 of 12 blocks)."""
    depth = max(depth, 4)
    first, second, third = (round(depth * quarter / 4) for quarter in (1, 2, 3))
    return first, second, third, depth


@lru_cache(maxsize=64)
def timm_vit(name: str) -> TimmViT:
    """Return the facts of timm's ViT `name`. It is built without data, and runs once.

    Raises ValueError, with the reason, for a name that timm does not know, and for a model without one list of
    transformer blocks on one grid of patches.
    """
    import timm  # here, because it imports torch
    import torch

    _check_name(name)
    module = timm.models.model_entrypoint(name.split(".")[0]).__module__.rsplit(".")[-1]
    refused = f"{name} cannot stand in a network"
    if module in REFUSED:
        raise ValueError(f"{refused}: {REFUSED[module]}")
    size = (GRID[0] * SIDE, GRID[1] * SIDE)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.no_grad():
            model = timm.create_model(name, num_classes=0, img_size=size, patch_size=SIDE)
            _check_structure(model, name)
            maps = model.eval().forward_intermediates(torch.empty(1, 3, *size), intermediates_only=True)
    except ValueError:
        raise
    except TypeError as error:  # no argument for the size of images or patches
        raise ValueError(f"{refused}: {NO_LIST}") from error
    except Exception as error:  # timm's models raise different errors for sizes that they cannot take
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ValueError(f"{refused}: timm does not run it on patches of {SIDE} × {SIDE} ({reason})") from error
    if {tuple(each.shape[1:]) for each in maps} != {(model.embed_dim, *GRID)}:
        raise ValueError(f"{refused}: its blocks do not all run on one grid of patches")
    heads = {getattr(getattr(block, "attn", None), "num_heads", None) for block in model.blocks}
    return TimmViT(name, len(model.blocks), model.embed_dim, heads.pop() if len(heads) == 1 else None)


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise ValueError(f"{name!r} is not a model of timm{hint}")
    if tag and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        weights = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"timm has no weights {tag!r} for {architecture}; {weights}")


def _check_structure(model: Any, name: str) -> None:
    """Raise ValueError for a model that is no list of attention blocks on one grid of patches."""
    from torch import nn

    refused = f"{name} cannot stand in a network"
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or not len(blocks) or hasattr(model, "stages"):
        raise ValueError(f"{refused}: {NO_LIST}")
    if not all(any("attn" in part or "attention" in part for part, _ in block.named_modules()) for block in blocks):
        raise ValueError(f"{refused}: its blocks have no attention")
    windows = {window for block in blocks if isinstance(window := getattr(block, "window_size", None), int)} - {0}
    if windows:
        raise ValueError(
            f"{refused}: its attention is within windows of {max(windows)} × {max(windows)} patches, not over the image"
        )
    embed = getattr(model, "patch_embed", None)
    if not isinstance(getattr(embed, "proj", None), nn.Conv2d):
        raise ValueError(f"{refused}: its patches are not embedded by one convolution")
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"{refused}: timm does not give the tokens of its blocks")
