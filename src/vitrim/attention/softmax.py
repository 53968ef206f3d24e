"""The softmax weights that an attention call uses, computed beside the call from what went into it.

They are computed when they are asked for, and in parts where that is wanted, so that the maps of a whole batch need
never be in memory at once: a part that fits the processor's cache is also read faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vitrim.errors import InputError

ALL = slice(None)
PART_BYTES = {"cpu": 2 * 2**20}
PART_BYTES_ELSEWHERE = 256 * 2**20
"""How large a part is: about a processor core's cache, or a large piece of work for a GPU."""


class Weights(Protocol):
    """Softmax weights of one attention call, (B, heads, queries, keys), not computed yet."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    def compute(self, images: slice = ALL, heads: slice = ALL, skip: int = 0) -> Tensor:
        """The weights of some images and heads, (b, h, queries, keys): rows sum to 1, float32 (float64 for float64).

        `skip` leaves out so many tokens at the front, as queries and as keys; rows are renormalised over the rest.
        """
        ...

    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class DotProduct:
    """softmax(QKᵀ · scale + mask), of the arguments of `torch.nn.functional.scaled_dot_product_attention`."""

    query: Tensor  # (B, H, L, E)
    key: Tensor  # (B, H, S, E)
    mask: Tensor | None  # broadcasts to (B, H, L, S); bool: True takes part
    is_causal: bool
    scale: float

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (*self.query.shape[:3], self.key.shape[2])

    @property
    def device(self) -> torch.device:
        return self.query.device

    def compute(self, images: slice = ALL, heads: slice = ALL, skip: int = 0) -> Tensor:
        dtype = torch.float64 if self.query.dtype == torch.float64 else torch.float32
        query = self.query[images, heads, skip:].to(dtype) * self.scale
        logits = query @ self.key[images, heads, skip:].to(dtype).transpose(-2, -1)  # (b, h, L, S)
        if self.is_causal:
            later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits.masked_fill_(later, -math.inf)
        if self.mask is None:
            return logits.softmax(dim=-1)
        mask = self.mask.expand(self.shape)[images, heads, skip:, skip:]
        logits = logits.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        alone = (logits == -math.inf).all(dim=-1, keepdim=True)
        return logits.softmax(dim=-1).masked_fill_(alone, 0.0)  # torch gives zeros where all keys are masked


@dataclass(frozen=True)
class Written:
    """Weights that a module wrote out itself, as softmax(logits); a lower precision than float32 is computed anew.

    bf16 keeps 8 bits of a weight; the logits that the module used keep enough to give the weight itself.
    """

    logits: Tensor  # (B, H, L, S)
    output: Tensor  # (B, H, L, S)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.output.shape[0], self.output.shape[1], self.output.shape[2], self.output.shape[3]

    @property
    def device(self) -> torch.device:
        return self.output.device

    def compute(self, images: slice = ALL, heads: slice = ALL, skip: int = 0) -> Tensor:
        if self.output.dtype in (torch.float32, torch.float64):
            weights = self.output[images, heads]
        else:
            weights = self.logits[images, heads].softmax(dim=-1, dtype=torch.float32)
        if skip == 0:
            return weights
        weights = weights[..., skip:, skip:]
        return weights / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    heads: int = 1,
) -> DotProduct:
    """Weights for the arguments of `scaled_dot_product_attention`: (…, H, L, E) queries, (…, G, S, E) keys.

    G is H, or a divisor of H under `enable_gqa`. Inputs of three axes are (B · heads, L, E). `value` and `dropout_p`
    are taken so that the call's own arguments can be passed on; the weights are those before dropout.
    """
    if query.is_nested or key.is_nested:
        raise InputError("attention over nested tensors (ragged batches) cannot be captured: pad the batch instead")
    query, key = query.detach(), key.detach()
    mask = None if attn_mask is None else attn_mask.detach()
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    leading = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])  # one key head may serve all
    query, key = query.expand(*leading, *query.shape[-2:]), key.expand(*leading, *key.shape[-2:])
    if mask is not None and query.ndim != 4:
        mask = four_axes(mask.expand(*query.shape[:-1], key.shape[-2]), heads)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return DotProduct(four_axes(query, heads), four_axes(key, heads), mask, is_causal, scale)


def written(logits: Tensor, output: Tensor, *, heads: int = 1) -> Written:
    """Weights of a module that computed `output = softmax(logits)`, (…, H, L, S) or (B · heads, L, S)."""
    return Written(four_axes(logits.detach(), heads), four_axes(output.detach(), heads))


def four_axes(tensor: Tensor, heads: int) -> Tensor:
    """Bring (…, H, L, S) or (B · heads, L, S) to (B, H, L, S); InputError if the heads do not divide."""
    if tensor.ndim == 4:
        return tensor
    if tensor.ndim > 4:
        return tensor.flatten(0, tensor.ndim - 4)
    if tensor.ndim == 2:
        return tensor[None, None]
    if heads < 1 or tensor.shape[0] % heads:
        raise InputError(f"{tensor.shape[0]} attention maps cannot be divided among {heads} heads")
    return tensor.unflatten(0, (-1, heads))


def parts(weights: Weights) -> Iterator[tuple[slice, slice]]:
    """Images and heads of pieces of about PART_BYTES: several images with all heads, or some heads of one image."""
    count, heads, queries, keys = weights.shape
    limit = PART_BYTES.get(weights.device.type, PART_BYTES_ELSEWHERE)
    maps = max(1, limit // (4 * queries * keys))
    per_image, per_part = (min(heads, maps), max(1, maps // heads))
    for image in range(0, count, per_part):
        for head in range(0, heads, per_image):
            yield slice(image, min(image + per_part, count)), slice(head, min(head + per_image, heads))
