"""The contract that all our networks keep: blocks, token grid, forward, and a truncated copy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import nn

from vitrim.config.schema import PATCH, NetworkConfig
from vitrim.errors import InputError
from vitrim.models.layers import repeat_gray
from vitrim.models.vit import PLAIN_VIT, PretrainedViT, ViT

State = Mapping[str, torch.Tensor]
N = TypeVar("N", bound="Network")
M = TypeVar("M", bound=nn.Module)
BLOCKS = "vit.blocks."
"""Where the transformer blocks are in a network's state dict."""


class Network(nn.Module, ABC):
    """A segmentation network with a vision transformer inside: images (B, C, H, W) to logits (B, K, H, W).

    A subclass builds `vit` and implements `segment`. A concatenation in front of a convolution puts what comes from
    deeper down first, so that `truncated` knows which inputs of the kernel are gone.
    """

    vit: ViT | None
    shallowest: ClassVar[int] = 0
    """The smallest depth that this kind of network has."""
    pretrained_vit: ClassVar[PretrainedViT] = PLAIN_VIT
    """Where the ViT can get ImageNet weights."""
    pretrained_cnn: ClassVar[str | None] = None
    """Name of the part that is a CNN of timm's with ImageNet weights of its own; None if there is none."""
    float32_parts: ClassVar[tuple[str, ...]] = ()
    """Parts that stay in float32 when the rest computes in 8-bit integers."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.depth < self.shallowest:
            raise InputError(f"{config.name} has no depth {config.depth}: the smallest is {self.shallowest}")
        self.config = config
        self.initialised_from = "random"
        """What the weights were before training; kept in the checkpoint."""

    @property
    def stem_channels(self) -> int:
        """Channels that the stem takes: 3, as pretrained ones do, also for one channel, which is repeated."""
        return 3 if self.config.in_chans == 1 else self.config.in_chans

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of the grid on which the tokens lie."""
        height, width = self.config.image_size
        return height // PATCH, width // PATCH

    @property
    def example(self) -> torch.Tensor:
        """Two images, without content, of the shape that the network takes."""
        return torch.empty(2, self.config.in_chans, *self.config.image_size, device="meta")

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return self.config.depth

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return self.vit.blocks if self.vit is not None else nn.ModuleList()

    @property
    def tap_of_scale(self) -> dict[int, int]:
        """Where the tokens go: reduction of the scale that is fed (2 is half the image's size) -> block, from 1."""
        return {PATCH: self.depth} if self.depth else {}

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks, counted from 1, whose output goes on to the decoder."""
        return tuple(sorted(set(self.tap_of_scale.values())))

    @abstractmethod
    def segment(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, H, W) of images (B, stem_channels, H, W)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W); a single channel is repeated where the stem takes 3.

        InputError if C, H or W is not what the network was built for.
        """
        channels, *size = images.shape[1:]
        fits = channels == self.config.in_chans or (channels == 1 and self.stem_channels == 3)
        if not fits or tuple(size) != self.config.image_size:
            expected = ", ".join(str(n) for n in (self.config.in_chans, *self.config.image_size))
            raise InputError(f"{self.config.name} takes images (batch, {expected}), got {tuple(images.shape)}")
        return self.segment(repeat_gray(images, self.stem_channels))

    def truncated(self: N, depth: int) -> N:
        """A copy with the first `depth` blocks, in which everything that survives keeps its weights exactly.

        It is a starting point for training (paper, section 3.8), not a network that segments as this one does.
        At full depth its logits are this network's. InputError for a depth that this network does not have.
        """
        if not self.shallowest <= depth <= self.depth:
            raise InputError(
                f"cannot truncate {self.config.name} to {depth} blocks: "
                f"with its {self.depth} it has forms of {self.shallowest} to {self.depth}"
            )
        return self.keep_blocks(range(1, depth + 1))

    def keep_blocks(self: N, kept: Sequence[int]) -> N:
        """A copy with the blocks `kept` (counted from 1, in order) and no others; what survives keeps its weights.

        It has the form of a truncation to as many blocks: taps count the blocks that are there. InputError for blocks
        that this network does not have, or for fewer than it can do with.
        """
        check_kept(kept, self.depth, self.config.name, self.shallowest)
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(BLOCKS)}
        for place, block in enumerate(kept):
            for name, tensor in self.blocks[block - 1].state_dict().items():
                state[f"{BLOCKS}{place}.{name}"] = tensor
        shorter = rebuilt(type(self), self.config.model_copy(update={"depth": len(kept)}), state)
        shorter.initialised_from = self.initialised_from
        return shorter.train(self.training)


def check_kept(kept: Sequence[int], depth: int, name: str, fewest: int = 0) -> None:
    """Raise InputError unless `kept` are blocks, from 1, in order, of a network with `depth` of them."""
    if list(kept) != sorted(set(kept)) or any(not 1 <= block <= depth for block in kept) or len(kept) < fewest:
        raise InputError(
            f"cannot keep blocks {list(kept)} of {name}: name {fewest} to {depth} of 1 to {depth}, in order, each once"
        )


def rebuilt(kind: type[N], config: NetworkConfig, state: State) -> N:
    """A network of `kind` filled with copies of the tensors in `state`; no random number is drawn.

    Names that the network does not have are left out; of a kernel with more inputs than the network's, the last stay.
    """
    with torch.device("meta"):
        network = kind(config)
    kept = {name: _last_inputs(state[name], tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept, assign=True)
    return network


def _last_inputs(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if tensor.shape != shape:
        tensor = tensor[:, tensor.shape[1] - shape[1] :]
    return tensor.detach().clone()


def expected_state(kind: type[Network], config: NetworkConfig) -> dict[str, torch.Tensor]:
    """Names and shapes (tensors without content) of the state dict of the network that `config` describes."""
    with torch.device("meta"):
        return kind(config).state_dict()


def check_tensors(expected: State, found: State, where: str) -> None:
    """Raise InputError, naming the tensors, if `found` lacks some, has others, or has some of another shape."""
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    said = [f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names]
    if said:
        raise InputError(f"{where} does not hold this network; tensors {'; tensors '.join(said)}")


def truncate(model: M, depth: int) -> M:
    """Return a copy of `model` with its first `depth` transformer blocks (paper, 3.8; figures 6 and 7).

    Every surviving weight is kept exactly; `model` itself is not changed. At the full depth the copy gives the same
    logits. A truncated network is a starting point: without training on, it is not expected to segment.

    Raises InputError where the network has no form of that depth, or does not offer truncation (see `vitrim.adapt`).

    Example:
        >>> import vitrim
        >>> network = vitrim.create_model("transunet", num_classes=9, size="micro", width=0.25)
        >>> vitrim.truncate(network, 3).depth
        3
    """
    if not hasattr(model, "truncated"):
        raise InputError(f"{type(model).__name__} cannot be truncated as it is; wrap it with vitrim.adapt(model) first")
    return model.truncated(depth)  # type: ignore[operator]
