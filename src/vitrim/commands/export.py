"""A network as one ONNX file, checked against torch before it is there."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitrim import __version__
from vitrim.config.reading import Study, data_section
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import LAYOUTS
from vitrim.data.recipe import Recipe, recipe_for, stored_recipe
from vitrim.data.sampling import evenly_spaced
from vitrim.errors import InputError
from vitrim.evaluation.segment import labels_of
from vitrim.files import replacing, sha256
from vitrim.inference.inputs import ALL, find_inputs, load_input
from vitrim.inference.onnx_engine import (
    CHECKSUM,
    FORMAT,
    KEY,
    NO_CHECKSUM,
    OnnxEngine,
    add_answer,
    add_checksum,
    optional,
)
from vitrim.inference.picture_inputs import find_pictures
from vitrim.inference.torch_engine import TorchEngine
from vitrim.models.adapt import Adapted
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.models.opening import open_network, weights_file
from vitrim.models.user_models import ModelSource

OPSET = 18
"""The ONNX operator set of the files: read by ONNX Runtime from 1.14 on."""

TOLERANCE = 1e-3
"""How far a logit may be from torch's."""

AGREEMENT = 0.999
"""Share of the pixels that must have torch's label."""

RANDOM_SLICES = 3
REAL_SLICES = 8
"""Slices of each volume that are compared, evenly spaced."""


@dataclass(frozen=True)
class Check:
    """How the file compares with torch: largest difference of a logit, share of equal labels, slices compared."""

    error: float
    agreement: float
    slices: int


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: ModelSource | None = None,
    data: str | Path | None = None,
    study: Study | None = None,
    int8: bool = False,
    overwrite: bool = False,
) -> dict[str, Check]:
    """Write a network as one ONNX file: images (B, C, H, W) to logits (B, K, H, W), for any B.

    The same as the command `vitrim export`. Weights, preprocessing, classes and configuration are all in the one file.
    It is run on random slices, and on those in `data`, and compared with torch; the checks are returned.

    Args:
        checkpoint: folder of a network.
        model: what builds the model of another library whose weights `checkpoint` holds, as in `vitrim.compress`.
        out: the file to write; its name ends in .onnx.
        data: a volume's file or a folder of them, to check the file on.
        study: whose data section says how images are prepared, where the checkpoint does not.
        int8: the transformer's matrix products in 8-bit integers. Then only the labels of real slices are compared.

    Raises:
        InputError: if it is not known how images are prepared, if the file is too far from torch, if `out` exists, or
            if a package is missing. Nothing is written.

    Example:
        >>> import vitrim
        >>> checks = vitrim.export("network", "network.onnx")
        >>> checks["random slices"].agreement > 0.999
        True
    """
    checkpoint, out, data = Path(checkpoint), Path(out), None if data is None else Path(data)
    section = data_section(study)
    if out.suffix != ".onnx":
        raise InputError(f"{out} must end in .onnx")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; use --overwrite, or choose another name")
    if int8 and data is None:
        raise InputError("--int8 rounds the weights, so it is checked on real images: give some with --data")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional(package)
    network = open_network(checkpoint, model, section)
    digest = sha256(weights_file(checkpoint))
    engine = TorchEngine(network, digest, stored_recipe(checkpoint), "cpu", "float32")
    recipe = recipe_for(checkpoint, engine.recipe, section, engine.image_size, engine.num_classes)
    slices = {} if int8 else {"random slices": _random_slices(engine)}
    if data is not None:
        slices["real slices"] = _real_slices(engine, recipe, data)
    about = {
        "format": FORMAT,
        "vitrim": __version__,
        **_described(network),
        "initialised_from": network.initialised_from,
        "preparation": recipe.dump(),
        "sha256": digest,
    }
    try:
        with replacing(out) as unfinished:
            try:
                _write(fold_for_inference(network), unfinished, about)
            except OSError:
                raise
            except Exception as error:  # what torch raises for code that it cannot follow has no common class
                if isinstance(network, Network):
                    raise
                reason = " ".join(str(error).split())[:300]
                raise InputError(f"torch cannot write {network.title} as ONNX: {reason}") from error
            if int8:
                _to_int8(unfinished)
            add_answer(unfinished)
            add_checksum(unfinished)
            exported = OnnxEngine.open(unfinished)
            checks = {what: _compare(engine, exported, images) for what, images in slices.items()}
            for what, check in checks.items():
                _insist(check, what, out, math.inf if int8 else TOLERANCE)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    return checks


def export_bundle(
    checkpoint: str | Path, out: str | Path, *, study: Study | None = None, overwrite: bool = False
) -> None:
    """Write a network as a MONAI bundle: a folder that `python -m monai.bundle run` segments volumes with.

    The same as `vitrim export --bundle`. The bundle reads volumes and prepares slices with vitrim's own code, so
    vitrim must be installed where it runs. It gives the label maps of `vitrim predict`.

    Args:
        checkpoint: folder of a network of vitrim's own.
        out: the folder to write.
        study: whose data section says how images are prepared, where the checkpoint does not.
        overwrite: replace a bundle of vitrim's that is there.

    Raises:
        InputError: if it is not known how images are prepared, if the network is not for volumes, or if `out` exists.

    Example:
        >>> import vitrim
        >>> from pathlib import Path
        >>> vitrim.export_bundle("network", "bundle")
        >>> print(*sorted(path.name for path in Path("bundle").iterdir()))
        configs docs models
    """
    from vitrim.inference.monai_bundle import is_bundle, write_bundle

    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists() and not (overwrite and is_bundle(out)):
        hint = "it is no bundle of vitrim's; choose another name" if overwrite else "use --overwrite, or another name"
        raise InputError(f"{out} exists already: {hint}")
    section = data_section(study)
    network = open_network(checkpoint)
    if not isinstance(network, Network):
        raise InputError(f"a bundle holds a network of vitrim's own, and {checkpoint} holds another library's model")
    recipe = recipe_for(checkpoint, stored_recipe(checkpoint), section, network.image_size, network.num_classes)
    if LAYOUTS[recipe.data.layout].planar:
        raise InputError(f"{checkpoint} was trained on pictures, and a bundle segments volumes; export ONNX instead")
    try:
        with replacing(out) as unfinished:
            write_bundle(unfinished, checkpoint, network, recipe)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error


def _described(network: Network | Adapted) -> dict[str, Any]:
    """What the file says of its network: its configuration, or what a model of another library takes and returns."""
    if isinstance(network, Network):
        return {"network": network.config.model_dump(mode="json")}
    shape = {"in_chans": network.in_chans, "image_size": network.image_size, "num_classes": network.num_classes}
    return {"adapted": {"class": network.title, **shape}}


def _write(network: Network | Adapted, path: Path, about: dict[str, Any]) -> None:
    """Export with a free batch size, and put `about` into the metadata."""
    onnx = optional("onnx")
    example = torch.zeros(2, *network.example.shape[1:])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.model if isinstance(network, Adapted) else network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # torch notes there which line of which file on this machine made the node
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(about, ensure_ascii=False))
    model.metadata_props.add(key=CHECKSUM, value=NO_CHECKSUM.decode())
    onnx.save(model, path)
    onnx.checker.check_model(path)


def _to_int8(path: Path) -> None:
    """Turn the weights of matrix products into 8-bit integers, one scale a column; the rest stays as it is.

    Convolutions stay in float32: ONNX Runtime gains nothing there without calibrating on images.
    """
    quantization = optional("onnxruntime.quantization")
    logging.disable(logging.WARNING)  # advice about shapes, on the root logger
    try:
        quantization.quantize_dynamic(
            path,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,  # 7 bits: exact on every processor; 8 bits are cut without VNNI
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


def _insist(check: Check, what: str, out: Path, tolerance: float) -> None:
    """InputError if the file is too far from torch."""
    if check.error > tolerance or check.agreement < AGREEMENT:
        allowed = f" (allowed {tolerance:g})" if math.isfinite(tolerance) else ""
        raise InputError(
            f"{out} was not written: on {what} its logits are up to {check.error:.2g} away from torch's{allowed}, and "
            f"{check.agreement:.3%} of its labels are torch's (at least {AGREEMENT:.1%})"
        )


def _random_slices(engine: TorchEngine) -> np.ndarray:
    shape = (RANDOM_SLICES, engine.channels, *engine.image_size)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _real_slices(engine: TorchEngine, recipe: Recipe, data: Path) -> np.ndarray:
    """Evenly spaced slices of every case in `data`, prepared (S, C, H, W)."""
    preparation = Preprocessing.from_config(recipe.data)
    found = []
    planar = LAYOUTS[recipe.data.layout].planar
    for case in (find_pictures(data) if planar else find_inputs(data, engine.channels, [ALL])).cases:
        images = preparation.apply(load_input(case, engine.channels).volume).images
        places = evenly_spaced(range(len(images)), REAL_SLICES)
        found.append(images[places].repeat(engine.channels // images.shape[1], axis=1))
    return np.concatenate(found)


def _compare(engine: TorchEngine, exported: OnnxEngine, images: np.ndarray) -> Check:
    """Run both, one slice first and then the rest two at a time, so that another batch size is tried too."""
    errors, same = [], []
    for part in (images[:1], *(images[n : n + 2] for n in range(1, len(images), 2))):
        expected, found = engine(part), exported(part)
        errors.append(float((found - expected).abs().max()))
        same.append((labels_of(found) == labels_of(expected)).float().mean(dim=(1, 2)))
    return Check(max(errors), float(torch.cat(same).mean()), len(images))
