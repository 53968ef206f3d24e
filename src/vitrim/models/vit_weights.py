"""Fills a ViT of timm inside a network, from timm's hub or from a file in timm's or Hugging Face's names."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from vitrim.config.network_schema import PATCH
from vitrim.config.timm_vits import timm_vit
from vitrim.errors import InputError, WeightsError
from vitrim.models.dry_run import without_data
from vitrim.models.hugging_face import timm_names
from vitrim.models.network import Network, State
from vitrim.models.state_dicts import read_state
from vitrim.models.timm_vit import MIXED_POSITIONS
from vitrim.models.timm_weights import Source, few, from_hub, unusable

HEADS = r"(head|head_dist|pre_logits|fc_norm|fc|classifier|attn_pool|lm_head)\..*"
"""Tensors of a file that no feature of a ViT depends on."""

INSIDE = "vit.timm."
"""Prefix of timm's names in a network's state dict."""


def load_timm_vit(network: Network, source: Source) -> None:
    """Fill the ViT of `network` from `source`. Raises WeightsError if the weights do not fit.

    timm resamples the patch embedding to patches of 16 × 16 pixels and the positions to the network's token grid, and
    adapts the embedding to its channels. Where a projection of a CNN's features takes the place of the patch embedding,
    it stays random. Blocks beyond the network's depth are not used.
    """
    config = network.config
    name = str(config.vit)
    wanted = {
        inner.removeprefix(INSIDE): tensor for inner, tensor in network.state_dict().items() if inner.startswith(INSIDE)
    }
    embedding = "patch_embed.proj.weight"
    on_images = wanted[embedding].shape[-1] == PATCH
    settings: dict[str, Any] = {
        "num_classes": 0,
        "img_size": config.image_size,
        "patch_size": PATCH,
        "in_chans": network.stem_channels if on_images else 3,
    }
    if not on_images:
        wanted = {inner: tensor for inner, tensor in wanted.items() if not inner.startswith("patch_embed.")}
    theirs = from_hub(source.name, settings) if source.file is None else _from_file(name, source, settings, wanted)
    found = theirs.state_dict()
    if (mixed := MIXED_POSITIONS.removeprefix("timm.")) in wanted:
        found[mixed] = found[mixed][:, : wanted[mixed].shape[1]]
    network.load_state_dict({INSIDE + inner: found[inner] for inner in wanted}, strict=False)


def _from_file(name: str, source: Source, settings: dict[str, Any], wanted: State) -> nn.Module:
    file = source.file
    assert file is not None
    if file.suffix == ".npz":
        raise WeightsError(f"{file}: weights of a ViT of timm are read from safetensors or pth, not from npz")
    try:
        state = {
            inner: tensor for inner, tensor in timm_names(read_state(file)).items() if not re.fullmatch(HEADS, inner)
        }
        with without_data(), torch.random.fork_rng(devices=[]):
            model = timm.create_model(name, **settings)
        _check(name, source, _as_timm_reads(state, model, name, file), model.state_dict(), wanted)
        overlay = {"state_dict": state, "custom_load": False}
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, pretrained_strict=False, **settings
        )
    except InputError:
        raise
    except Exception as error:  # timm's loaders raise different errors for tensors that they do not expect
        raise unusable(source, error) from error


def _as_timm_reads(state: State, model: nn.Module, name: str, file: Path) -> State:
    """Return `state` as timm's loader changes it: other releases of the model have other names."""
    change = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if change is None:
        return state
    scales = {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(change).parameters else {}
    try:
        return change(dict(state), model, **scales)
    except Exception as error:  # positions or patches that are those of another model
        raise WeightsError(f"pretrained: {file} holds weights of another ViT than {name} ({error})") from error


def _check(name: str, source: Source, found: State, known: State, wanted: State) -> None:
    """Raise WeightsError if `found` are not the weights of the ViT `name`: timm's loader would accept a part of them.

    `known` is the state of the whole model, `wanted` that of the network's ViT.
    """
    facts = timm_vit(name)
    numbers = {int(match[1]) for inner in found if (match := re.match(r"blocks\.(\d+)\.", inner))}
    if numbers and (blocks := max(numbers) + 1) != facts.depth:
        raise WeightsError(f"pretrained: {source.file} holds {blocks} blocks; {name} has {facts.depth}")
    width = found.get("blocks.0.norm1.weight")
    if width is not None and width.shape != (facts.dim,):
        raise WeightsError(f"pretrained: {source.file} holds tokens {len(width)} wide; those of {name} are {facts.dim}")
    problems = {
        "missing": [inner for inner in wanted if inner not in found],
        "unexpected": [
            inner for inner in found if inner not in known and inner != "mask_token" and not re.fullmatch(HEADS, inner)
        ],
        "of another shape": [
            inner
            for inner in wanted
            if inner in found and inner != "patch_embed.proj.weight" and found[inner].shape != known[inner].shape
        ],
    }
    said = [f"tensors {problem}: {few(names)}" for problem, names in problems.items() if names]
    if said:
        raise WeightsError(f"pretrained: {source.file} holds weights of another ViT than {name}; {'; '.join(said)}")
