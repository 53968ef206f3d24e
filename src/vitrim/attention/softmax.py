"""Softmax weights of an attention call, computed separately from the inputs of the call.

They are computed on demand, for all images and heads or for a part of them. So the maps of a whole batch never have
to be in memory at the same time. A part that fits into the CPU cache is also faster to read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vitrim.errors import InputError

ALL = slice(None)
PART_BYTES = {"cpu": 2 * 2**20}
PART_BYTES_ELSEWHERE = 256 * 2**20
"""Size of a part in bytes, for a CPU and for other devices: about the cache of a core, or enough work for a GPU."""


class Weights(Protocol):
    """Softmax weights of one attention call, (B, heads, queries, keys), before they are computed."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    def compute(self, images: slice = ALL, heads: slice = ALL, skip: int = 0) -> Tensor:
        """Compute the weights of some images and heads, (b, h, queries, keys). Rows sum to 1.

        They are float32, or float64 for inputs in float64. `skip` is the number of first tokens that are left out, as
        queries and as keys. Rows are scaled to sum to 1 over the remaining tokens.
        """
        ...

    def allowed(self) -> Tensor | None:
        """Which keys a query may attend to, bool, broadcasts to (B, heads, queries, keys); None if all."""
        ...

    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class DotProduct:
    """softmax(QKᵀ · scale + mask), for the arguments of `torch.nn.functional.scaled_dot_product_attention`."""

    query: Tensor  # (B, H, L, E)
    key: Tensor  # (B, H, S, E)
    mask: Tensor | None  # broadcasts to (B, H, L, S); bool: a query attends to keys with True
    is_causal: bool
    scale: float

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (*self.query.shape[:3], self.key.shape[2])

    @property
    def device(self) -> torch.device:
        return self.query.device

    def compute(self, images: slice = ALL, heads: slice = ALL, skip: int = 0) -> Tensor:
        logits = self._logits(self.query[images, heads, skip:], self.key[images, heads, skip:])  # (b, h, L, S)
        if self.is_causal:
            later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits.masked_fill_(later, -math.inf)
        if self.mask is None:
            return logits.softmax(dim=-1)
        mask = self.mask.expand(self.shape)[images, heads, skip:, skip:]
        logits = logits.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        alone = (logits == -math.inf).all(dim=-1, keepdim=True)
        return logits.softmax(dim=-1).masked_fill_(alone, 0.0)  # torch gives zeros if all keys are masked

    def _logits(self, query: Tensor, key: Tensor) -> Tensor:
        """QKᵀ · scale in float32, or float64 for inputs in float64: (b, h, L, E), (b, h, S, E) to (b, h, L, S)."""
        if query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
            # A GPU multiplies half precision into float32 as exactly as float32 inputs, and many times as fast.
            maps, keys = query.flatten(0, 1), key.flatten(0, 1).transpose(-2, -1)
            zero = torch.zeros((), device=query.device).expand(len(maps), maps.shape[1], keys.shape[2])
            products = torch.baddbmm(zero, maps, keys, out_dtype=torch.float32, beta=0, alpha=self.scale)
            return products.unflatten(0, query.shape[:2])
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        return (query.to(dtype) * self.scale) @ key.to(dtype).transpose(-2, -1)

    def allowed(self) -> Tensor | None:
        if self.is_causal:
            return torch.ones(self.shape[-2:], dtype=torch.bool, device=self.device).tril()
        if self.mask is None or self.mask.dtype == torch.bool:
            return self.mask
        return _not_masked(self.mask)

    def kept(self) -> DotProduct:
        """Return the same with copies of its tensors, for use after the model has run on."""
        query, key = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (self.query, self.key))
        return DotProduct(query, key, self.mask, self.is_causal, self.scale)


def joined(calls: Sequence[DotProduct]) -> DotProduct:
    """Join calls without masks, of one shape, into one: its images are those of the first call, then of the second …

    Raises ValueError if the calls differ in shape or scale.
    """
    first = calls[0]
    if any((call.shape, call.scale) != (first.shape, first.scale) for call in calls):
        raise ValueError("the calls differ in shape or scale")
    query, key = torch.cat([call.query for call in calls]), torch.cat([call.key for call in calls])
    return DotProduct(query, key, None, is_causal=False, scale=first.scale)


@dataclass(frozen=True)
class Written:
    """Weights that a module computed itself, as softmax(logits).

    Weights in a precision below float32 are computed again from the logits: bf16 keeps only 8 bits of a weight, but the
    logits are precise enough.
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

    def allowed(self) -> Tensor | None:
        return _not_masked(self.logits)


def _not_masked(logits: Tensor) -> Tensor:
    """False where a value is so low that it masks a key: −∞, or near the lowest number of its type."""
    return logits > torch.finfo(logits.dtype).min / 2


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
    """Make the weights for arguments of `scaled_dot_product_attention`: queries (…, H, L, E), keys (…, G, S, E).

    G is H, or a divisor of H with `enable_gqa`. Inputs with three axes are (B · heads, L, E). `value` and `dropout_p`
    have no effect; they exist so that the arguments of the call can be passed on. The weights are those before dropout.

    Raises InputError for nested tensors, or if `heads` does not divide the first axis of a three-axis input.
    """
    if query.is_nested or key.is_nested:
        raise InputError("attention over nested tensors (ragged batches) cannot be captured: pad the batch instead")
    query, key = query.detach(), key.detach()
    mask = None if attn_mask is None else attn_mask.detach()
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    if query.shape[:-2] != key.shape[:-2]:  # query heads may share one key head
        leading = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        query, key = query.expand(*leading, *query.shape[-2:]), key.expand(*leading, *key.shape[-2:])
    if mask is not None and query.ndim != 4:
        mask = four_axes(mask.expand(*query.shape[:-1], key.shape[-2]), heads)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return DotProduct(four_axes(query, heads), four_axes(key, heads), mask, is_causal, scale)


def written(logits: Tensor, output: Tensor, *, heads: int = 1) -> Written:
    """Make the weights of a module that computed `output = softmax(logits)`, (…, H, L, S) or (B · heads, L, S)."""
    return Written(four_axes(logits.detach(), heads), four_axes(output.detach(), heads))


def four_axes(tensor: Tensor, heads: int) -> Tensor:
    """Reshape (…, H, L, S) or (B · heads, L, S) to (B, H, L, S).

    Raises InputError if `heads` does not divide the first axis of a three-axis input.
    """
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
    """Yield (images, heads) of parts of about PART_BYTES: several images with all heads, or some heads of one image."""
    count, heads, queries, keys = weights.shape
    limit = PART_BYTES.get(weights.device.type, PART_BYTES_ELSEWHERE)
    maps = max(1, limit // (4 * queries * keys))
    per_image, per_part = (min(heads, maps), max(1, maps // heads))
    for image in range(0, count, per_part):
        for head in range(0, heads, per_image):
            yield slice(image, min(image + per_part, count)), slice(head, min(head + per_image, heads))
