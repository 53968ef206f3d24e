"""Names of tensors in Hugging Face's ViT, DeiT and Dinov2 (with and without registers), and timm's names of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

PATCHES = "embeddings.patch_embeddings.projection.weight"
"""A tensor that each of these models has, and no model of timm."""

RENAMED = [
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"layernorm\.", "norm."),
    (r"attention\.(?:attention\.)?(query|key|value)\.", r"attn.\1."),
    (r"attention\.q_proj\.", "attn.query."),
    (r"attention\.k_proj\.", "attn.key."),
    (r"attention\.v_proj\.", "attn.value."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"mlp\.weights_in\.", "mlp.fc1."),
    (r"mlp\.(?:weights_out|down_proj)\.", "mlp.fc2."),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
]
"""Patterns of names in Hugging Face's models, of releases 4 and 5 of transformers, and what replaces them."""

JOINED = {"attn.qkv": ("attn.query", "attn.key", "attn.value"), "mlp.fc1": ("mlp.gate_proj", "mlp.up_proj")}
"""Layers of timm that hold several layers of Hugging Face, one after the other."""


def timm_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of `state` under the names that timm reads. Tensors without such names stay as they are.

    Dinov2 gets the names of its original release, which timm's loader knows. What lies outside the ViT (a classifier
    or a decoder) is left out.
    """
    prefixes = [name.removesuffix(PATCHES) for name in state if name.endswith(PATCHES)]
    if not prefixes:
        return dict(state)
    prefix = min(prefixes, key=len)
    found = {}
    for name, tensor in state.items():
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler."):
            inner = name.removeprefix(prefix)
            for pattern, replacement in RENAMED:
                inner = re.sub(pattern, replacement, inner)
            found[inner] = tensor
    return _joined(found)


def _joined(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    joined: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        whole, parts = next(
            ((whole, parts) for whole, parts in JOINED.items() if any(f"{part}." in name for part in parts)), ("", ())
        )
        if not parts:
            joined[name] = tensor
            continue
        here = next(part for part in parts if f"{part}." in name)
        names = [name.replace(here, part) for part in parts]
        if all(each in state for each in names):
            joined[name.replace(here, whole)] = torch.cat([state[each] for each in names])
        else:
            joined[name] = tensor  # a part is missing: the check of names says so
    return joined
