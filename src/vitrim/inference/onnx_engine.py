"""Runs an ONNX file that `vitrim export` wrote, with ONNX Runtime and without a torch network."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from vitrim.config.names import Device
from vitrim.config.network_schema import NetworkConfig
from vitrim.config.reading import explain
from vitrim.data.recipe import Recipe
from vitrim.errors import InputError, WeightsError
from vitrim.files import sha256

CHECKSUM, NO_CHECKSUM = "vitrim_sha256", b"0" * 64
"""Key in the metadata of the SHA-256 of the whole file, computed with this text in its place."""

KEY = "vitrim"
"""Key of vitrim's JSON in the metadata of the ONNX file."""

ANSWER, PLACES, FARTHEST = "vitrim_answer", 256, 0.02
"""Key in the metadata of some logits of a fixed slice, how many they are, and how far they may be elsewhere: the root
mean square of the difference, as a share of their spread. A processor that computes the integers of a file wrongly is
then found before the first volume."""

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
"""Names of ONNX Runtime for the devices."""

FORMAT = 1
"""Format version of that JSON. It changes when an older vitrim can no longer read it."""


@dataclass(frozen=True)
class Shape:
    """What a network takes and returns: images (B, in_chans, H, W), logits (B, num_classes, H, W)."""

    in_chans: int
    image_size: tuple[int, int]
    num_classes: int


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
    def open(cls, path: Path, device: Device = "auto") -> OnnxEngine:
        """Read a file of `vitrim export`.

        Raises InputError if it is not one, or if ONNX Runtime, or a GPU for it, is missing.
        """
        if not path.is_file():
            raise WeightsError(f"no such file: {path}")
        runtime = optional("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        # torch's thread limit (OMP_NUM_THREADS, a container's share) also applies to ONNX Runtime
        options.intra_op_num_threads = torch.get_num_threads()
        there = runtime.get_available_providers()
        if device == "gpu" and CUDA not in there:
            raise InputError("device gpu: this ONNX Runtime has no CUDA; install onnxruntime-gpu, or choose cpu")
        wanted = (CPU,) if device == "cpu" else (CUDA, CPU)
        providers = [name for name in wanted if name in there]
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
            shape = _shape(content)
            recipe = content["preparation"] and Recipe.parse(content["preparation"], str(path))
        except ValidationError as error:
            raise WeightsError(f"{path}: {explain(error, NetworkConfig)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path} has damaged vitrim metadata; export the network again") from error
        if _damaged(path, session.get_modelmeta().custom_metadata_map.get(CHECKSUM)):
            raise WeightsError(f"{path} is damaged or was changed: its checksum is wrong; export the network again")
        used = "cuda" if CUDA in session.get_providers() else "cpu"
        logits = _run_once(session, shape, path)
        _check_answer(logits, session.get_modelmeta().custom_metadata_map.get(ANSWER), path)
        return cls(session, sha256(path), shape.in_chans, shape.image_size, shape.num_classes, recipe, used)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return the logits (B, K, H, W) of float32 images (B, C, H, W)."""
        return torch.from_numpy(self.session.run(None, {"images": np.ascontiguousarray(images)})[0])


def add_answer(path: Path) -> None:
    """Write some logits of a fixed slice, computed by ONNX Runtime on this machine, into the metadata of a file."""
    onnx, runtime = optional("onnx"), optional("onnxruntime")
    session = runtime.InferenceSession(path, providers=[CPU])
    shape = session.get_inputs()[0].shape[1:]
    answer = _places(session.run(None, {"images": _slice(shape)})[0])
    model = onnx.load(path)
    model.metadata_props.add(key=ANSWER, value=json.dumps([float(f"{value:.6g}") for value in answer]))
    onnx.save(model, path)


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


def _shape(content: dict[str, Any]) -> Shape:
    """Read it from vitrim's JSON. Raises KeyError, ValueError or TypeError if it is damaged."""
    if "network" in content:
        config = NetworkConfig.model_validate(content["network"])
        return Shape(config.in_chans, config.image_size, config.num_classes)
    about = content["adapted"]
    rows, columns = (int(n) for n in about["image_size"])
    return Shape(int(about["in_chans"]), (rows, columns), int(about["num_classes"]))


def _run_once(session: Any, shape: Shape, path: Path) -> np.ndarray:
    """Return the logits of the fixed slice. Raises WeightsError if the graph is not that of the file's metadata."""
    rows, columns = shape.image_size
    expected = (1, shape.num_classes, rows, columns)
    try:
        found = session.run(None, {"images": _slice((shape.in_chans, rows, columns))})
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise WeightsError(
            f"{path} does not take the images that its metadata describe (1×{shape.in_chans}×{rows}×{columns}): "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    shapes = [getattr(values, "shape", None) for values in found]
    if shapes != [expected] or found[0].dtype != np.float32:
        raise WeightsError(
            f"{path} gives {shapes}, but its metadata describe a network of {shape.num_classes} classes: one output "
            f"of shape {expected}, float32; export the network again"
        )
    return found[0]


def _check_answer(logits: np.ndarray, answer: str | None, path: Path) -> None:
    """Raise WeightsError if this machine does not compute the logits that the file says, or if it cannot be checked.

    Files without an answer are of an older version. In float32 they need none.
    """
    if answer is None:
        if b"MatMulInteger" in path.read_bytes():
            raise WeightsError(
                f"{path} has 8-bit products and does not say what they give, so they cannot be checked on this "
                "machine; export the network again"
            )
        return
    try:
        expected = np.array(json.loads(answer), float)
        far = float(np.sqrt(np.mean((_places(logits) - expected) ** 2)) / max(float(expected.std()), 1e-6))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path} has damaged vitrim metadata; export the network again") from error
    if not far <= FARTHEST:
        raise WeightsError(
            f"{path} gives other logits on this machine than where it was exported ({far:.0%} of their spread away); "
            "export the network again on this machine, without --int8 if that does not help"
        )


def _slice(shape: Any) -> np.ndarray:
    """A fixed slice (1, C, H, W), float32: waves between −2 and 2."""
    count = int(np.prod(shape))
    return (2 * np.sin(np.arange(count) ** 1.3)).astype(np.float32).reshape(1, *shape)


def _places(logits: np.ndarray) -> np.ndarray:
    """Some of the logits, evenly spaced."""
    flat = logits.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(PLACES, flat.size)).astype(int)]


def optional(name: str) -> Any:
    """Import a module of the extra `onnx`. Raises InputError, which names the extra, if it is missing.

    ONNX Runtime would report its use to its maker. It does so only if the user has set ORT_DISABLE_TELEMETRY=0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"ONNX needs the package {name}, which is missing: pip install 'vitrim[onnx]'") from error
