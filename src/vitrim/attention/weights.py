"""The softmax weights that an attention call uses, computed beside the call from what went into it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitrim.errors import InputError


def sdpa_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(QKᵀ · scale + mask) for the arguments of `torch.nn.functional.scaled_dot_product_attention`.

    query (..., H, L, E), key (..., G, S, E) with G = H, or G a divisor of H under `enable_gqa`; returns (..., H, L, S),
    before dropout, in float32 (float64 for float64 input) also where the inputs are bf16 or half, detached. A query
    whose keys are all masked gets zeros, as in torch. `value` and `dropout_p` are taken so that the call's own
    arguments can be passed on; they do not matter here (Vaswani et al. 2017, equation 1; paper, equation 1).
    """
    if query.is_nested or key.is_nested:
        raise InputError("attention over nested tensors (ragged batches) cannot be captured: pad the batch instead")
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        query, key = query.detach().to(dtype), key.detach().to(dtype)
        if enable_gqa and key.shape[-3] != query.shape[-3]:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        logits = (query * scale) @ key.transpose(-2, -1)  # (..., H, L, S)
        if is_causal:
            allowed = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
            logits = logits.masked_fill_(~allowed, -math.inf)
        if attn_mask is None:
            return logits.softmax(dim=-1)
        mask = attn_mask.detach()
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        empty = (logits == -math.inf).all(dim=-1, keepdim=True)
        return logits.softmax(dim=-1).masked_fill(empty, 0.0)


def softmax_weights(logits: Tensor, output: Tensor) -> Tensor:
    """The weights of a module that writes `output = softmax(logits)` out: `output`, or its float32 form if it is lower.

    bf16 keeps 8 bits of a weight; the logits that the module used keep enough to give the weight itself.
    """
    with torch.no_grad():
        if output.dtype in (torch.float32, torch.float64):
            return output.detach()
        return logits.detach().softmax(dim=-1, dtype=torch.float32)
