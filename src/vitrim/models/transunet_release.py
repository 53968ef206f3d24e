"""Reads checkpoints of the public TransUNet code (Chen et al. 2021)."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from pydantic import ValidationError

from vitrim.config.network_schema import PATCH, NetworkConfig
from vitrim.config.reading import explain
from vitrim.errors import WeightsError
from vitrim.models.network import State, check_tensors, filled, skeleton
from vitrim.models.state_dicts import read_state
from vitrim.models.transunet import TransUNet
from vitrim.models.vit import SIZES

POSITIONS = "transformer.embeddings.position_embeddings"
HEAD = "segmentation_head.0.weight"

RENAMED = [
    (r"stem\.cnn\.stem\.conv\.(.*)", r"transformer.embeddings.hybrid_model.root.conv.\1"),
    (r"stem\.cnn\.stem\.norm\.(.*)", r"transformer.embeddings.hybrid_model.root.gn.\1"),
    (r"vit\.pos_embed", POSITIONS),
    (r"vit\.patch_embed\.(.*)", r"transformer.embeddings.patch_embeddings.\1"),
    (r"vit\.blocks\.(\d+)\.norm1\.(.*)", r"transformer.encoder.layer.\1.attention_norm.\2"),
    (r"vit\.blocks\.(\d+)\.norm2\.(.*)", r"transformer.encoder.layer.\1.ffn_norm.\2"),
    (r"vit\.blocks\.(\d+)\.mlp\.(.*)", r"transformer.encoder.layer.\1.ffn.\2"),
    (r"vit\.blocks\.(\d+)\.attn\.proj\.(.*)", r"transformer.encoder.layer.\1.attn.out.\2"),
    (r"vit\.norm\.(.*)", r"transformer.encoder.encoder_norm.\1"),
    (r"bottleneck\.(.*)", r"decoder.conv_more.\1"),
    (r"head\.(.*)", r"segmentation_head.0.\1"),
]
"""Patterns of tensor names in vitrim, and names of the same tensors in the public release."""


def read_transunet(checkpoint: Path, in_chans: int = 1) -> TransUNet:
    """Read the network in a checkpoint of the public TransUNet code (R50-ViT). The network is in eval mode.

    The tensors determine the number of blocks (up to 12) and classes, the width of the ViT and the image size. Images
    are square. They have `in_chans` channels; the network repeats a single channel to three.

    Raises WeightsError if the file cannot be read, or if a tensor is missing, unexpected or of another shape. The
    message names the tensor.
    """
    state = read_state(checkpoint)
    for name in (POSITIONS, HEAD):
        if name in state and state[name].ndim != (3 if name == POSITIONS else 4):
            raise WeightsError(
                f"{checkpoint}: {name} has the shape {tuple(state[name].shape)}, which the release has not"
            )
    config = _config(state, in_chans, checkpoint)
    network = skeleton(TransUNet, config)
    ours = network.state_dict()
    check_tensors(_release_shapes(ours), state, str(checkpoint))
    filled(network, {name: _joined(name, state) for name in ours})
    network.initialised_from = f"public TransUNet release, {checkpoint.name}"
    return network.eval()


def _config(state: State, in_chans: int, where: Path) -> NetworkConfig:
    absent = [name for name in (POSITIONS, HEAD) if name not in state]
    if absent:
        raise WeightsError(f"{where} is no checkpoint of the public TransUNet code: {', '.join(absent)} missing")
    tokens, dim = state[POSITIONS].shape[1:]
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise WeightsError(f"{where}: {tokens} positions in {POSITIONS} do not form a square grid")
    sizes = [name for name, size in SIZES.items() if size.dim == dim]
    if not sizes:
        raise WeightsError(
            f"{where}: the ViT has width {dim}; known widths are {', '.join(str(s.dim) for s in SIZES.values())}"
        )
    layers = {int(found[1]) for name in state if (found := re.match(r"transformer\.encoder\.layer\.(\d+)\.", name))}
    try:
        return NetworkConfig(
            name="transunet",
            num_classes=state[HEAD].shape[0],
            depth=max(layers, default=-1) + 1,
            size=sizes[0],  # type: ignore[arg-type]
            image_size=(side * PATCH, side * PATCH),
            in_chans=in_chans,
            stem="release",
        )
    except ValidationError as error:
        raise WeightsError(f"{where}: {explain(error, NetworkConfig)}") from error


def _release_names(name: str) -> list[str]:
    """Names of the release's tensors that form vitrim's tensor `name`: one, or query, key and value."""
    if found := re.fullmatch(r"vit\.blocks\.(\d+)\.attn\.qkv\.(.*)", name):
        return [f"transformer.encoder.layer.{found[1]}.attn.{part}.{found[2]}" for part in ("query", "key", "value")]
    if found := re.fullmatch(r"stem\.cnn\.stages\.(\d+)\.blocks\.(\d+)\.(.*)", name):
        unit = f"transformer.embeddings.hybrid_model.body.block{int(found[1]) + 1}.unit{int(found[2]) + 1}."
        inner = found[3].replace("downsample.norm", "gn_proj").replace("downsample.conv", "downsample")
        return [unit + inner.replace("norm", "gn")]
    if found := re.fullmatch(r"decoder\.(\d+)\.(\d+)\.(.*)", name):
        return [f"decoder.blocks.{found[1]}.conv{int(found[2]) + 1}.{found[3]}"]
    for pattern, replacement in RENAMED:
        if re.fullmatch(pattern, name):
            return [re.sub(pattern, replacement, name)]
    raise KeyError(name)


def _release_shapes(ours: State) -> dict[str, torch.Tensor]:
    shapes: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        parts = _release_names(name)
        shapes.update(zip(parts, tensor.chunk(len(parts)) if len(parts) > 1 else (tensor,), strict=True))
    return shapes


def _joined(name: str, state: State) -> torch.Tensor:
    parts = [state[part] for part in _release_names(name)]
    return torch.cat(parts) if len(parts) > 1 else parts[0]
