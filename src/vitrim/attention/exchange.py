"""Switches the exchange between tokens off, or replaces it, in chosen blocks of a model while it runs.

What still works without exchange did not need it in these blocks. docs/depth.md says what follows from that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrim.attention.calls import AttentionMode, Caller, module_names, title_of, uncompiled
from vitrim.attention.forward import as_written
from vitrim.attention.softmax import dot_product, four_axes, written
from vitrim.config.names import ExchangeForm
from vitrim.config.reading import checked_name
from vitrim.errors import InputError


@contextmanager
def without_exchange(
    model: nn.Module,
    blocks: Collection[int],
    form: ExchangeForm = "identity",
    *,
    maps: Mapping[int, Tensor] | None = None,
    layers: str | Sequence[str] | None = None,
) -> Iterator[None]:
    """Run `model` with another attention in `blocks` (from 1). Values, projections, MLPs and residuals stay.

    Forms:
        `identity`: every token attends to itself alone, so tokens exchange nothing (weights I, output v).
        `constant`: the weights do not depend on the image: those of `maps`, block to (heads, N, N), or else the mean
            over the images of the batch.
        `uniform`: every token attends to all tokens alike.

    Masked keys get no weight in `constant` and `uniform`. Class and register tokens are tokens like the others. Blocks
    count as in `profile_attention`; `layers` selects the layers that count. The model is not changed: no hook, no
    patch, no weight. A compiled model runs uncompiled inside the context.

    Raises:
        InputError: if a block does not exist or was not reached, if its attention is windowed or cross-attention, or
            if a block has several attention layers.

    Example:
        >>> import torch, vitrim
        >>> network = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=2)
        >>> images = torch.randn(1, 3, 32, 32)
        >>> with vitrim.without_exchange(network.eval(), [2]):
        ...     logits = network(images)
        >>> bool((logits == network(images)).all())
        False
    """
    mode = ExchangeMode(as_written(model), blocks, form, maps=maps, layers=layers)
    with uncompiled(), mode:
        yield
    mode.check_reached()


class ExchangeMode(AttentionMode):
    """The mode behind `without_exchange`. `reach` is called with the number of each block before its attention."""

    def __init__(
        self,
        model: nn.Module,
        blocks: Collection[int],
        form: ExchangeForm = "identity",
        *,
        maps: Mapping[int, Tensor] | None = None,
        layers: str | Sequence[str] | None = None,
        reach: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(model, layers)
        checked_name(form, ExchangeForm, "form")
        if not isinstance(blocks, Iterable) or isinstance(blocks, str):
            raise InputError(f"blocks must be numbers of blocks, for example [1, 2], not {blocks!r:.100}")
        wrong = [block for block in blocks if isinstance(block, bool) or not isinstance(block, int) or block < 1]
        if wrong:
            raise InputError(f"blocks are counted from 1: {wrong[0]!r} is no block")
        self.model_title, self.form, self.maps, self.reach = title_of(model), form, maps, reach
        self.wanted = frozenset(blocks)
        self.numbers: dict[str, int] = {}  # layer to number of its block
        listed = getattr(model, "blocks", None) if layers is None else None
        self.listed: list[str] | None = None
        if isinstance(listed, (nn.ModuleList, nn.Sequential)):
            names = module_names(model)
            self.listed = [names[id(block)] for block in listed]
            self._check_count(len(self.listed))

    def attend(self, caller: Caller, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        source = dot_product(*args, **kwargs, heads=caller.heads)
        block = self._block(caller, source.shape)
        if block is None:
            return F.scaled_dot_product_attention(*args, **kwargs)
        value = _value(*args, **kwargs)
        if self.form == "identity":
            return value.clone()
        weights = self._weights(block, source.shape, source.compute, source.allowed(), value)
        output = weights.to(value.dtype) @ four_axes(value, caller.heads)
        return output.reshape(value.shape)

    def weigh(self, caller: Caller, logits: Tensor, output: Tensor, heads: int) -> Tensor:
        source = written(logits, output, heads=heads)
        block = self._block(caller, source.shape)
        if block is None:
            return output
        if self.form == "identity":
            weights = torch.eye(output.shape[-1], dtype=output.dtype, device=output.device).expand(source.shape)
        else:
            weights = self._weights(block, source.shape, source.compute, source.allowed(), output)
        return weights.to(output.dtype).reshape(output.shape)

    def check_reached(self) -> None:
        """Raise InputError if a wanted block made no attention call."""
        missing = sorted(self.wanted - set(self.numbers.values()))
        if missing:
            there = f"attention was seen in {len(self.numbers)} blocks" if self.numbers else "no attention was seen"
            raise InputError(
                f"exchange was not switched off in block {missing[0]} of {self.model_title}: {there}. The model must "
                "run inside the context and call scaled_dot_product_attention, MultiheadAttention or a softmax over "
                "(batch, heads, queries, keys) of all patches"
            )

    def _block(self, caller: Caller, shape: tuple[int, int, int, int]) -> int | None:
        """The number of the wanted block that makes this call; None for other calls. Counts new layers."""
        images, _, queries, keys = shape
        number = self._number(caller.layer, queries, keys)
        if number is None:
            return None
        if number not in self.wanted:
            if self.reach is not None:
                self.reach(number)
            return None
        layer = f"attention layer {caller.layer!r} (block {number})"
        if queries != keys:
            raise InputError(
                f"{layer} has {queries} queries and {keys} keys: cross-attention and attention to reduced tokens "
                "cannot be switched off, because no key is the query itself"
            )
        if caller.images is not None and images != caller.images:
            raise InputError(
                f"{layer} has {images} maps per head for {caller.images} images: windowed attention (as in Swin) does "
                "not cover the whole image and is not switched off"
            )
        if self.reach is not None:
            self.reach(number)
        return number

    def _number(self, layer: str, queries: int, keys: int) -> int | None:
        if layer in self.numbers:
            return self.numbers[layer]
        if self.listed is not None:
            places = [n for n, name in enumerate(self.listed, 1) if layer == name or layer.startswith(f"{name}.")]
            if not places:
                return None
            number = places[0]
            if number in self.numbers.values():
                raise InputError(
                    f"block {number} of {self.model_title} has several attention layers: "
                    "choose the layers that count as blocks with layers="
                )
        elif queries < keys and self.layers is None:
            return None  # pooling and decoders, as in `profile_attention`
        else:
            number = len(self.numbers) + 1
        self.numbers[layer] = number
        return number

    def _check_count(self, count: int) -> None:
        beyond = sorted(block for block in self.wanted if block > count)
        if beyond:
            raise InputError(f"{self.model_title} has {count} blocks: there is no block {beyond[0]}")

    def _weights(
        self,
        block: int,
        shape: tuple[int, int, int, int],
        compute: Callable[[], Tensor],
        allowed: Tensor | None,
        like: Tensor,
    ) -> Tensor:
        """Weights (B, H, N, N) or what expands to it, float32 or float64; masked keys have none."""
        kind = torch.float64 if like.dtype == torch.float64 else torch.float32
        with torch.autocast(like.device.type, enabled=False):
            if self.form == "uniform":
                weights = torch.full((1, 1, 1, shape[3]), 1 / shape[3], dtype=kind, device=like.device)
            elif self.maps is None:
                weights = compute().to(kind).mean(dim=0, keepdim=True)
            else:
                weights = self._given(block, shape).to(like.device, kind)[None]
            weights = weights.expand(shape)
            if allowed is not None:
                weights = weights * allowed
                weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(kind).tiny)
        return weights

    def _given(self, block: int, shape: tuple[int, int, int, int]) -> Tensor:
        assert self.maps is not None
        if block not in self.maps:
            raise InputError(f"maps has no map for block {block}")
        given = torch.as_tensor(self.maps[block])
        if tuple(given.shape) != shape[1:]:
            raise InputError(f"the map of block {block} must be (heads, N, N) = {shape[1:]}, not {tuple(given.shape)}")
        return given


def _value(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The values of an attention call, one for each query head: (…, H, S, E)."""
    if enable_gqa and value.shape[-3] != query.shape[-3]:
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
    leading = torch.broadcast_shapes(query.shape[:-2], value.shape[:-2])
    return value.expand(*leading, *value.shape[-2:])
