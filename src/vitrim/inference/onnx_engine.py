"""Runs an ONNX file that `vitrim export` wrote, with ONNX Runtime and without a torch network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from vitrim.config.network_schema import NetworkConfig
from vitrim.config.reading import explain
from vitrim.data.recipe import Recipe
from vitrim.errors import InputError, WeightsError
from vitrim.files import sha256

CHECKSUM, NO_CHECKSUM = "vitrim_sha256", b"0" * 64
"""Key in the metadata of the SHA-256 of the whole file, computed with this text in its place."""

KEY = "vitrim"
"""Key of vitrim's JSON in the metadata of the ONNX file."""

FORMAT = 1
"""Format version of that JSON. It changes when an older vitrim can no longer read it."""


@dataclass
class OnnxEngine:
    """A network in ONNX Runtime, on the GPU if the installed package supports CUDA, else on the CPU."""

    session: Any
    identity: str
    channels: int
    image_size: tuple[int, int]
    num_classes: int
    recipe: Recipe | None
    device: str = "cpu"
    precision: str = "as exported"

    @classmethod
    def open(cls, path: Path) -> OnnxEngine:
        """Read a file of `vitrim export`. Raises InputError if it is not one, or if ONNX Runtime is missing."""
        if not path.is_file():
            raise WeightsError(f"no such file: {path}")
        runtime = optional("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        # torch's thread limit (OMP_NUM_THREADS, a container's share) also applies to ONNX Runtime
        options.intra_op_num_threads = torch.get_num_threads()
        there = runtime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
        try:
            session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            raise WeightsError(f"cannot read {path} as ONNX: {' '.join(str(error).split())[:200]}") from error
        about = session.get_modelmeta().custom_metadata_map.get(KEY)
        if about is None:
            raise WeightsError(
                f"{path} has no vitrim metadata (network and preparation of images); export the network's checkpoint "
                f"with `vitrim export`"
            )
        try:
            content = json.loads(about)
            if content["format"] != FORMAT:
                raise WeightsError(f"{path} is of format {content['format']}; this vitrim reads format {FORMAT}")
            config = NetworkConfig.model_validate(content["network"])
            recipe = content["preparation"] and Recipe.parse(content["preparation"], str(path))
        except ValidationError as error:
            raise WeightsError(f"{path}: {explain(error, NetworkConfig)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path} has damaged vitrim metadata; export the network again") from error
        if _damaged(path, session.get_modelmeta().custom_metadata_map.get(CHECKSUM)):
            raise WeightsError(f"{path} is damaged or was changed: its checksum is wrong; export the network again")
        device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
        _check_graph(session, config, path)
        return cls(session, sha256(path), config.in_chans, config.image_size, config.num_classes, recipe, device)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return the logits (B, K, H, W) of float32 images (B, C, H, W)."""
        return torch.from_numpy(self.session.run(None, {"images": np.ascontiguousarray(images)})[0])


def add_checksum(path: Path) -> None:
    """Write the SHA-256 of an ONNX file into the file, in place of the zeros that its metadata hold for it."""
    content = path.read_bytes()
    assert content.count(NO_CHECKSUM) == 1
    path.write_bytes(content.replace(NO_CHECKSUM, hashlib.sha256(content).hexdigest().encode()))


def _damaged(path: Path, checksum: str | None) -> bool:
    """Whether the file is not what it was when its checksum was written. Older files have none."""
    if checksum is None:
        return False
    content = path.read_bytes().replace(checksum.encode(), NO_CHECKSUM)
    return hashlib.sha256(content).hexdigest() != checksum


def _check_graph(session: Any, config: NetworkConfig, path: Path) -> None:
    """Run one empty slice. Raises WeightsError if the graph is not that of the network in the file's metadata."""
    rows, columns = config.image_size
    expected = (1, config.num_classes, rows, columns)
    try:
        found = session.run(None, {"images": np.zeros((1, config.in_chans, rows, columns), np.float32)})
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise WeightsError(
            f"{path} does not take the images that its metadata describe (1×{config.in_chans}×{rows}×{columns}): "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    shapes = [getattr(values, "shape", None) for values in found]
    if shapes != [expected] or found[0].dtype != np.float32:
        raise WeightsError(
            f"{path} gives {shapes}, but its metadata describe a network of {config.num_classes} classes: one output "
            f"of shape {expected}, float32; export the network again"
        )


def optional(name: str) -> Any:
    """Import a module of the extra `onnx`. Raises InputError, which names the extra, if it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"ONNX needs the package {name}, which is missing: pip install 'vitrim[onnx]'") from error
