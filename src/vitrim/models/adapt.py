"""The contract (blocks, token grid, truncation) for other people's models, as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.errors import InputError
from vitrim.models.block_search import BlockList, find_blocks, first_tensor
from vitrim.models.examples import example_for
from vitrim.models.network import Network, check_kept
from vitrim.token_grid import find_grid


class PassThrough(nn.Module):
    """What is left of a block that was removed: it hands its tokens on."""

    returns: int | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first tensor among the arguments, in a tuple of length `returns` if the blocks here return one."""
        tokens = first_tensor(args, kwargs)
        return tokens if self.returns is None else (tokens, *[None] * (self.returns - 1))


def remove(block: nn.Module, returns: int | None) -> None:
    """Turn `block` into a `PassThrough`, without parameters, in place.

    It stays an instance of its own class and keeps its hooks: decoders such as DPT's collect what they need by these.
    """
    if isinstance(block, PassThrough):
        return
    kind = type(block)
    block.__class__ = type(f"Removed{kind.__name__}", (PassThrough, kind), {})
    for content in (block._parameters, block._buffers, block._modules):
        content.clear()
    block.returns = returns  # type: ignore[assignment]


class Adapted(nn.Module):
    """Another library's model with the contract of ours; calling it calls the model."""

    def __init__(
        self, model: nn.Module, found: BlockList, token_grid: tuple[int, ...], example: Tensor, kept: Sequence[int]
    ) -> None:
        super().__init__()
        self.model = model
        self.found = found
        self.token_grid = token_grid
        """Rows and columns of the patches (three numbers for a volume)."""
        self.example = example
        """Two images, without content, of the shape that the model takes."""
        self.kept = tuple(kept)
        """The transformer blocks that are left, counted from 1 as before truncation."""
        self.initialised_from = "as adapted"

    @property
    def depth(self) -> int:
        """Number of transformer blocks left."""
        return len(self.kept)

    @property
    def full_depth(self) -> int:
        """Number of transformer blocks before truncation."""
        return len(self._places)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks that are left, in order."""
        return nn.ModuleList(self._places[block - 1] for block in self.kept)

    @property
    def _places(self) -> nn.ModuleList:
        return self.model.get_submodule(self.found.path)  # type: ignore[return-value]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        return self.model(*args, **kwargs)

    def truncated(self, depth: int) -> Adapted:
        """A copy in which the blocks after the first `depth` hand their tokens on unchanged, and hold no parameters.

        All other weights are kept exactly; at full depth the outputs are the model's own. InputError for a depth that
        the model does not have.
        """
        if not 0 <= depth <= self.depth:
            raise InputError(f"cannot truncate {type(self.model).__name__} with {self.depth} blocks to {depth}")
        return self.keep_blocks(range(1, depth + 1))

    def keep_blocks(self, kept: Sequence[int]) -> Adapted:
        """A copy in which all blocks but `kept`, of those that are left and counted from 1, hand their tokens on.

        InputError for blocks that are not there.
        """
        check_kept(kept, self.depth, type(self.model).__name__)
        staying = [self.kept[block - 1] for block in kept]
        shorter = copy.deepcopy(self.model)
        places: nn.ModuleList = shorter.get_submodule(self.found.path)  # type: ignore[assignment]
        for number, block in enumerate(places, start=1):
            if number not in staying:
                remove(block, self.found.returns)
        adapted = Adapted(shorter, self.found, self.token_grid, self.example, staying)
        adapted.initialised_from = self.initialised_from
        return adapted.train(self.training)


def adapt(
    model: nn.Module,
    *,
    blocks: str | None = None,
    token_grid: tuple[int, ...] | None = None,
    example: Tensor | None = None,
) -> Network | Adapted:
    """Give `model` the contract: `blocks`, `depth`, `token_grid`, `truncated(depth)`. Nothing in it is changed.

    The blocks are found by running the model on an example without content, so that what the model does counts, not
    what it is called: timm's ViTs and hybrids, MONAI's UNETR and ViT, Hugging Face's ViT and DPT, torchvision's ViT,
    segmentation_models.pytorch's DPT need nothing else; any other module may need `blocks`, the dotted path of its
    list of blocks. `token_grid` (rows, columns) is worked out from the number of tokens if not given, and `example`,
    two images (2, C, H, W), from what the model says about itself.

    Raises InputError with the reason for a model without a single list of blocks on one token grid, as Swin.

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
        grid = token_grid or find_grid(found.tokens, example.shape[2:], model=model)[0]
    except InputError as error:
        raise InputError(f"cannot adapt {type(model).__name__}: {error}, as token_grid=(rows, columns)") from error
    depth = len(model.get_submodule(found.path))  # type: ignore[arg-type]
    adapted = Adapted(model, found, tuple(grid), torch.empty_like(example, device="meta"), range(1, depth + 1))
    return adapted.train(model.training)
