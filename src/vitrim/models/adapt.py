"""Gives models of other libraries vitrim's interface (blocks, token grid, truncation) without changing them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrim.errors import InputError
from vitrim.models.block_search import BlockList, find_blocks, first_tensor
from vitrim.models.dry_run import raw_output
from vitrim.models.examples import example_for
from vitrim.models.layers import repeat_gray
from vitrim.models.network import Network, check_kept
from vitrim.token_grid import find_grid


class PassThrough(nn.Module):
    """Replacement for a removed block. It returns its tokens unchanged."""

    returns: int | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first tensor among the arguments, or a tuple of length `returns` if the blocks return tuples."""
        tokens = first_tensor(args, kwargs)
        return tokens if self.returns is None else (tokens, *[None] * (self.returns - 1))


def remove(block: nn.Module, returns: int | None) -> None:
    """Turn `block` into a `PassThrough` without parameters, in place.

    It stays an instance of its class and keeps its hooks: decoders such as DPT's collect their inputs with hooks.
    """
    if isinstance(block, PassThrough):
        return
    kind = type(block)
    block.__class__ = type(f"Removed{kind.__name__}", (PassThrough, kind), {})
    for content in (block._parameters, block._buffers, block._modules):
        content.clear()
    block.returns = returns  # type: ignore[assignment]


class Adapted(nn.Module):
    """A model of another library with vitrim's interface. Calling it calls the model.

    If the model takes three channels, a single channel is repeated to three.
    """

    shallowest: ClassVar[int] = 0
    """Smallest depth."""

    def __init__(
        self,
        model: nn.Module,
        found: BlockList,
        token_grid: tuple[int, ...],
        example: Tensor,
        full_depth: int,
        kept: Sequence[int],
    ) -> None:
        super().__init__()
        self.model = model
        self.found = found
        self.token_grid = token_grid
        """Rows and columns of patches (three numbers for a volume)."""
        self.example = example
        """Two images of the shape that the model takes, as a meta tensor (without data)."""
        self.full_depth = full_depth
        """Number of transformer blocks before truncation."""
        self.kept = tuple(kept)
        """Remaining transformer blocks, numbered from 1 as before truncation."""
        self.initialised_from = "as adapted"

    @property
    def title(self) -> str:
        """Name for people: the class of the model."""
        return type(self.model).__name__

    @property
    def name(self) -> str:
        """Name for the computer."""
        return self.title

    @property
    def in_chans(self) -> int:
        """Number of channels of the images."""
        return self.example.shape[1]

    @property
    def stem_channels(self) -> int:
        """Number of channels that the model itself takes."""
        return self.in_chans

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.example.shape[-2:]
        return height, width

    @cached_property
    def num_classes(self) -> int:
        """Number of classes K, with the background. Raises InputError unless the output is logits (B, K, H, W)."""
        output = raw_output(self, self.example)
        if not isinstance(output, Tensor):
            returned = f"a {type(output).__name__}"
        elif output.ndim != self.example.ndim or output.shape[2:] != self.example.shape[2:]:
            returned = f"a tensor of shape {tuple(output.shape)}"
        elif output.shape[1] < 2:
            returned = "one channel, which leaves no class to choose"
        else:
            return output.shape[1]
        raise InputError(
            f"{self.title} does not return one logit for each class and pixel, (batch, classes, "
            f"{', '.join(map(str, self.example.shape[2:]))}), with the background as class 0: it returns {returned}; "
            f"wrap it in a module that does"
        )

    @property
    def depth(self) -> int:
        """Number of remaining transformer blocks."""
        return len(self.kept)

    @property
    def blocks(self) -> nn.ModuleList:
        """The remaining transformer blocks, in order."""
        places: nn.ModuleList = self.model.get_submodule(self.found.path)  # type: ignore[assignment]
        return places if self.found.nested else nn.ModuleList(places[block - 1] for block in self.kept)

    def forward(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model and return its output."""
        if self.in_chans == 3 and isinstance(images, Tensor) and images.ndim == self.example.ndim == 4:
            images = repeat_gray(images, self.in_chans)
        return self.model(images, *args, **kwargs)

    def truncated(self, depth: int) -> Adapted:
        """Return a copy in which the blocks after `depth` return their tokens unchanged and have no parameters.

        Blocks whose parts the model calls one by one (vit-pytorch) leave the list. All other weights are unchanged. At
        full depth the copy gives the same outputs. Raises InputError for a depth that the model does not have.
        """
        if not 0 <= depth <= self.depth:
            raise InputError(
                f"cannot truncate {type(self.model).__name__} to {depth} blocks: it has {self.depth}, so choose 0 to "
                f"{self.depth}"
            )
        return self.keep_blocks(range(1, depth + 1))

    def keep_blocks(self, kept: Sequence[int]) -> Adapted:
        """Return a copy in which only the blocks `kept` remain. The others return their tokens unchanged.

        `kept` counts the remaining blocks of this model from 1. Raises InputError for blocks that do not exist.
        """
        check_kept(kept, self.depth, type(self.model).__name__)
        staying = [self.kept[block - 1] for block in kept]
        shorter = copy.deepcopy(self.model)
        places: nn.ModuleList = shorter.get_submodule(self.found.path)  # type: ignore[assignment]
        if self.found.nested:  # the model calls the parts of each block, so it must find fewer blocks in the list
            shorter.set_submodule(self.found.path, nn.ModuleList(places[block - 1] for block in kept))
            _check_runs(shorter, self.example)
        else:
            for number, block in enumerate(places, start=1):
                if number not in staying:
                    remove(block, self.found.returns)
        adapted = Adapted(shorter, self.found, self.token_grid, self.example, self.full_depth, staying)
        adapted.initialised_from = self.initialised_from
        return adapted.train(self.training)


def adapt(
    model: nn.Module,
    *,
    blocks: str | None = None,
    token_grid: tuple[int, ...] | None = None,
    example: Tensor | None = None,
) -> Network | Adapted:
    """Give `model` vitrim's interface: `blocks`, `depth`, `token_grid`, `truncated(depth)`. `model` does not change.

    The blocks are found by a run of the model on a meta tensor (without data). This works without further arguments for
    timm's ViTs and hybrids, MONAI's UNETR and ViT, Hugging Face's ViT and DPT, torchvision's ViT,
    segmentation_models.pytorch's DPT and vit-pytorch's ViT. Other modules may need `blocks`, the dotted path of the
    list of blocks. `token_grid` (rows, columns) is by default computed from the number of tokens. `example` is two
    images (2, C, H, W), or volumes (2, C, D, H, W), by default of the size that the model states: give it for another
    size.

    Raises InputError, with the reason, for a model without one list of blocks on one token grid, for example Swin, SAM
    (windows), ViTMAE (a random part of the patches) and a CNN.

    Example:
        >>> import timm, vitrim
        >>> model = vitrim.adapt(timm.create_model("vit_tiny_patch16_224", depth=4))
        >>> model.depth, model.token_grid
        (4, (14, 14))
        >>> vitrim.truncate(model, 2).depth
        2
    """
    if isinstance(model, (Network, Adapted)):
        return model
    if example is None:
        example = example_for(model)
    elif example.ndim < 3 or example.shape[0] != 2:
        raise InputError(f"the example must be two images, (2, channels, height, width), not {tuple(example.shape)}")
    found = find_blocks(model, example, blocks)
    try:
        grid, _ = find_grid(found.tokens, example.shape[2:], model=model, grid=token_grid)
    except InputError as error:
        axes = "(layers, rows, columns)" if example.ndim == 5 else "(rows, columns)"
        hint = f" with token_grid={axes}" if token_grid is None else ""
        raise InputError(f"cannot adapt {type(model).__name__}: {error}{hint}") from error
    depth = len(model.get_submodule(found.path))  # type: ignore[arg-type]
    shape = torch.empty_like(example, device="meta")
    adapted = Adapted(model, found, tuple(grid), shape, depth, range(1, depth + 1))
    return adapted.train(model.training)


def check_called(model: Network | Adapted) -> None:
    """Raise InputError if the blocks are lists of parts, so that no module returns the tokens of a block."""
    if isinstance(model, Adapted) and model.found.nested:
        raise InputError(
            f"{model.title} calls the parts of its blocks one by one, so the tokens after a block are not known: block "
            f"influence and distillation need them; choose other blocks, or recover without a teacher"
        )


def _check_runs(model: nn.Module, example: Tensor) -> None:
    """Raise InputError if the model does not run with fewer blocks in its list."""
    try:
        raw_output(model, example)
    except Exception as error:  # it is the code of another library
        raise InputError(f"{type(model).__name__} does not run with fewer blocks: {error}") from error
