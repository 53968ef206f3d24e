"""Runs an ONNX file that `vitrim export` wrote, with ONNX Runtime; no network of torch's is built."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from vitrim.config.reading import explain
from vitrim.config.schema import NetworkConfig
from vitrim.data.recipe import Recipe
from vitrim.errors import InputError
from vitrim.files import sha256

KEY = "vitrim"
"""Where in the file's metadata vitrim's own lie, as JSON."""

FORMAT = 1
"""Changes when an older vitrim could no longer read what this one writes."""


@dataclass
class OnnxEngine:
    """A network in ONNX Runtime, on its GPU if the package has that, else on the processor."""

    session: Any
    identity: str
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    recipe: Recipe | None
    precision: str = "as exported"

    @classmethod
    def open(cls, path: Path) -> OnnxEngine:
        """Read a file of `vitrim export`; InputError if it is not one, or if ONNX Runtime is missing."""
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        runtime = optional("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        # what torch was told to take (OMP_NUM_THREADS, a container's share) holds for this one too
        options.intra_op_num_threads = torch.get_num_threads()
        there = runtime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
        try:
            session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # the runtime's exceptions have no common class
            raise InputError(f"cannot read {path} as ONNX: {' '.join(str(error).split())[:200]}") from error
        about = session.get_modelmeta().custom_metadata_map.get(KEY)
        if about is None:
            raise InputError(
                f"{path} was not written by `vitrim export`: it does not say what network it is, nor how its images "
                f"are prepared; export the network's checkpoint again"
            )
        try:
            content = json.loads(about)
            if content["format"] != FORMAT:
                raise InputError(f"{path} is of format {content['format']}; this vitrim reads format {FORMAT}")
            config = NetworkConfig.model_validate(content["network"])
            recipe = content["preparation"] and Recipe.parse(content["preparation"], str(path))
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error, NetworkConfig)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} does not hold what vitrim writes there; export the network again") from error
        return cls(session, sha256(path), config.in_chans, config.image_size, config.num_classes, recipe)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W), float32."""
        return torch.from_numpy(self.session.run(None, {"images": np.ascontiguousarray(images)})[0])


def optional(name: str) -> Any:
    """A module of the extra `onnx`; InputError, with what to install, where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"ONNX needs the package {name}, which is missing: pip install 'vitrim[onnx]'") from error
