"""Reads state dicts from files that other programs wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vitrim.errors import WeightsError


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the state dict in a file of `torch.save` or of safetensors. Tensors are on the CPU, floats are float32.

    The state dict may be under the key `state_dict` or `model`. A prefix `module.` of names is removed. Code in the
    file is not executed. Raises WeightsError if the file cannot be read or holds no state dict.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except Exception as error:  # what a damaged file raises differs between library versions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"cannot read {path} as a state dict of tensors: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(map(torch.is_tensor, content.values())):
        raise WeightsError(
            f"{path} holds no state dict: expected tensors by name, at the top or under state_dict or model"
        )
    return {
        name.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in content.items()
    }


def _torch_load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
