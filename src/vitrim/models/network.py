"""Base class of vitrim's networks: blocks, token grid, forward, and truncated copies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import nn

from vitrim.arguments import whole_number
from vitrim.config.names import NETWORK_TITLES, DecoderForm
from vitrim.config.network_schema import PATCH, NetworkConfig
from vitrim.config.reading import checked_name
from vitrim.errors import InputError, WeightsError
from vitrim.models.dry_run import without_data
from vitrim.models.layers import repeat_gray
from vitrim.models.timm_vit import AnyViT, TimmViT
from vitrim.models.vit import PLAIN_VIT, PretrainedViT

State = Mapping[str, torch.Tensor]
N = TypeVar("N", bound="Network")
M = TypeVar("M", bound=nn.Module)


class Network(nn.Module, ABC):
    """A segmentation network with a vision transformer inside: images (B, C, H, W) to logits (B, K, H, W).

    A subclass builds `vit` and implements `segment`. Before a convolution, it must concatenate the deeper features
    first: `truncated` then knows which inputs of the kernel to remove.
    """

    vit: AnyViT | None
    shallowest: ClassVar[int] = 0
    """Smallest depth of this kind of network."""
    pretrained_vit: ClassVar[PretrainedViT] = PLAIN_VIT
    """Source of ImageNet weights for the ViT."""
    pretrained_cnn: ClassVar[str | None] = None
    """Name of the part that is a timm CNN with separate ImageNet weights; None if there is none."""
    feeds_scales: ClassVar[bool] = False
    """Whether blocks feed several scales of the decoder, so that truncation (`decoder: paper`) removes some of them."""
    float32_parts: ClassVar[tuple[str, ...]] = ()
    """Parts that stay in float32 when the other parts are quantised to int8."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.depth < self.shallowest:
            raise InputError(f"{config.name} has no depth {config.depth}: the smallest is {self.shallowest}")
        self.config = config
        self.initialised_from = "random"
        """Origin of the weights before training. It is stored in the checkpoint."""

    @property
    def name(self) -> str:
        """Name for the computer."""
        return self.config.name

    @property
    def title(self) -> str:
        """Name for people."""
        return NETWORK_TITLES[self.config.name]

    @property
    def in_chans(self) -> int:
        """Number of channels of the images."""
        return self.config.in_chans

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.config.image_size

    @property
    def num_classes(self) -> int:
        """Number of classes, with the background."""
        return self.config.num_classes

    @property
    def stem_channels(self) -> int:
        """Number of input channels of the stem. One image channel is repeated to 3, as pretrained stems take 3."""
        return 3 if self.config.in_chans == 1 else self.config.in_chans

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        height, width = self.config.image_size
        return height // PATCH, width // PATCH

    @property
    def example(self) -> torch.Tensor:
        """Two images of the shape that the network takes, as a meta tensor (without data)."""
        return torch.empty(2, self.config.in_chans, *self.config.image_size, device="meta")

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return self.config.depth

    @property
    def blocks_path(self) -> str:
        """Dotted name of the list of blocks."""
        return f"vit.{self.vit.blocks_path}" if self.vit is not None else "vit.blocks"

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return self.vit.blocks if self.vit is not None else nn.ModuleList()

    @property
    def tap_of_scale(self) -> dict[int, int]:
        """Block, from 1, that feeds each scale of the decoder. A key is a reduction: 2 is half the image size."""
        return {PATCH: self.depth} if self.depth else {}

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks, counted from 1, whose output feeds the decoder."""
        return tuple(sorted(set(self.tap_of_scale.values())))

    @abstractmethod
    def segment(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, H, W) of images (B, stem_channels, H, W)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits (B, K, H, W) from images (B, C, H, W). A single channel is repeated if the stem takes 3.

        Raises InputError if C, H or W is not that of the network.
        """
        channels, *size = images.shape[1:]
        fits = channels == self.config.in_chans or (channels == 1 and self.stem_channels == 3)
        if not fits or tuple(size) != self.config.image_size:
            expected = ", ".join(str(n) for n in (self.config.in_chans, *self.config.image_size))
            raise InputError(f"{self.config.name} takes images (batch, {expected}), got {tuple(images.shape)}")
        return self.segment(repeat_gray(images, self.stem_channels))

    def truncated(self: N, depth: int, decoder: DecoderForm | None = None) -> N:
        """Return a copy with the first `depth` blocks. All remaining weights are unchanged.

        The copy is a starting point for training (paper, section 3.8): it does not segment as well as this network.
        At full depth the copy gives the same logits. `decoder` is the form of its decoder (`NetworkConfig.decoder`), by
        default that of this network. Raises InputError for a depth or a decoder that this network cannot have.
        """
        depth = whole_number(depth, "depth")
        if not self.shallowest <= depth <= self.depth:
            raise InputError(
                f"cannot truncate {self.config.name} to {depth} blocks: "
                f"it has {self.depth}, so choose {self.shallowest} to {self.depth}"
            )
        return self.keep_blocks(range(1, depth + 1), decoder)

    def keep_blocks(self: N, kept: Sequence[int], decoder: DecoderForm | None = None) -> N:
        """Return a copy with only the blocks `kept` (counted from 1, in order). All remaining weights are unchanged.

        The copy is built like a network truncated to the same number of blocks: taps count the blocks that are kept.
        Raises InputError for blocks that this network does not have, or for fewer blocks than it needs.
        """
        check_kept(kept, self.depth, self.config.name, self.shallowest)
        path = f"{self.blocks_path}."
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(path)}
        for place, block in enumerate(kept):
            for name, tensor in self.blocks[block - 1].state_dict().items():
                state[f"{path}{place}.{name}"] = tensor
        if isinstance(self.vit, TimmViT):
            state |= {f"vit.{name}": tensor for name, tensor in self.vit.of_blocks(kept).items()}
        config = self.config.model_copy(update={"depth": len(kept), "decoder": decoder or self.config.decoder})
        shorter = skeleton(type(self), config)
        if any(name not in state for name in shorter.state_dict()):
            raise InputError(
                f"this {config.name} was truncated as in the paper and has no whole decoder: truncate the full network"
            )
        filled(shorter, state)
        shorter.initialised_from = self.initialised_from
        return shorter.train(self.training)


def check_kept(kept: Sequence[int], depth: int, name: str, fewest: int = 0) -> None:
    """Raise InputError unless `kept` are `fewest` or more of the blocks 1 to `depth`, in order."""
    if list(kept) != sorted(set(kept)) or any(not 1 <= block <= depth for block in kept) or len(kept) < fewest:
        raise InputError(
            f"cannot keep blocks {list(kept)} of {name}: give {fewest} to {depth} different numbers from 1 to {depth}, "
            "in increasing order"
        )


def skeleton(kind: type[N], config: NetworkConfig) -> N:
    """Build a network of `kind` without data: its tensors are meta tensors."""
    with without_data():
        return kind(config)


def filled(network: N, state: State) -> N:
    """Put copies of the tensors in `state` into a `skeleton`, which is returned.

    Names that the network does not have are ignored. If a kernel has more inputs than the network needs, the last
    inputs are kept.
    """
    kept = {
        name: _last_inputs(state[name], tensor.shape).to(tensor.dtype) for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(kept, assign=True)
    return network


def _last_inputs(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if tensor.shape != shape:
        tensor = tensor[:, tensor.shape[1] - shape[1] :]
    return tensor.detach().clone()


def check_tensors(expected: State, found: State, where: str) -> None:
    """Raise WeightsError, with the names, if tensors of `found` are missing, unexpected, or of another shape or type.

    Floating-point types count as one: weights of other programs are often stored in half precision.
    """
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
        "of another type": [
            f"{name} {found[name].dtype} instead of {tensor.dtype}"
            for name, tensor in expected.items()
            if name in found
            and found[name].dtype != tensor.dtype
            and not (found[name].is_floating_point() and tensor.is_floating_point())
        ],
    }
    said = [f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names]
    if said:
        raise WeightsError(f"{where} does not hold this network; tensors {'; tensors '.join(said)}")


def truncate(model: M, depth: int, decoder: DecoderForm | None = None) -> M:
    """Return a copy of `model` with its first `depth` transformer blocks (paper, 3.8; figures 6 and 7).

    All remaining weights are unchanged, and `model` itself is not changed. At full depth the copy gives the same
    logits. A truncated network is a starting point: it must be trained further before it segments well.

    `decoder` is for 2D UNETR and 2D CATS: "paper" removes the scales of the decoder whose tap is gone, "whole" keeps
    all, fed by the last block that is kept. By default it is that of the network's configuration.

    Raises InputError if the network cannot have this depth, or if it cannot be truncated (see `vitrim.adapt`).

    Example:
        >>> import vitrim
        >>> network = vitrim.create_model("transunet", num_classes=9, size="micro", width=0.25)
        >>> vitrim.truncate(network, 3).depth
        3
    """
    if not hasattr(model, "truncated"):
        raise InputError(f"{type(model).__name__} cannot be truncated directly; wrap it with vitrim.adapt(model) first")
    if decoder is None:
        return model.truncated(depth)  # type: ignore[operator]
    if not isinstance(model, Network):
        raise InputError(f"decoder={decoder!r} is for vitrim's own networks; {type(model).__name__} keeps its decoder")
    checked_name(decoder, DecoderForm, "decoder")
    return model.truncated(depth, decoder)
