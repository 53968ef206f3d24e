"""Saves and loads a network as a checkpoint: a folder with model.safetensors and model.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, overload

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vitrim import __version__
from vitrim.config.network_schema import NetworkConfig
from vitrim.config.reading import explain
from vitrim.errors import InputError, WeightsError
from vitrim.files import parse_json, replacing, sha256, short_reason, understood, write_json
from vitrim.models.adapt import Adapted, adapt
from vitrim.models.factory import NETWORKS
from vitrim.models.network import Network, check_tensors, filled, skeleton

DESCRIPTION = "vitrim"
"""Key in the metadata of model.safetensors of what model.json says about the network."""

NETWORK_FILES = ("model.json", "model.safetensors")
"""A network alone: its description and its tensors."""

FILES = {*NETWORK_FILES, "preparation.json", "trial.json", "import.json", "recovery.json",
         "recovery.csv", "cases.csv", "tuning.csv", "history.csv", "cost.json", "origin.json"}  # fmt: skip
"""Files that vitrim writes into the folder of a network; `save_model` replaces a folder that holds only these."""

KEYS = {"format", "vitrim", "network", "adapted", "initialised_from", "sha256"}
"""Keys of model.json."""

FORMAT = 1
"""Format number in model.json. It increases if older versions of vitrim cannot read the new files."""


def save_model(model: nn.Module, path: Path | str) -> None:
    """Save `model` into the folder `path`, completely or not at all. A checkpoint that is there is replaced.

    The same weights give the same bytes. For an adapted model (`vitrim.adapt`), the weights and the numbers of the
    kept blocks are saved, but not the code of the other library. Raises WeightsError for any other module, and if
    `path` is a file or a folder that holds anything but such a checkpoint.

    Example:
        >>> import vitrim
        >>> network = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=1)
        >>> vitrim.save_model(network, "saved")
        >>> vitrim.load_model("saved").depth
        1
    """
    if not isinstance(model, (Network, Adapted)):
        raise WeightsError(
            f"cannot save a {type(model).__name__}: use save_model(vitrim.adapt(model), path), which saves its weights"
        )
    others = _other_files(Path(path))
    if others:
        raise WeightsError(f"{path} holds {others[0]}, which is no part of a checkpoint; choose another folder")
    with replacing(Path(path)) as folder:
        folder.mkdir(parents=True)
        write_model(model, folder)


def _other_files(path: Path) -> list[str]:
    """Return what would be lost if the folder `path` were replaced, apart from a checkpoint."""
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.name not in FILES)
    return [path.name] if path.exists() else []


def write_model(model: Network | Adapted, folder: Path) -> None:
    """Write the files of `model` (see `save_model`) into an existing folder. Other files in it stay."""
    if isinstance(model, Network):
        described: dict[str, Any] = {"network": model.config.model_dump(mode="json")}
    else:
        described = {"adapted": _description_of(model)}
    # The description stands in the file of the tensors too, whose checksum covers it.
    stored = {DESCRIPTION: json.dumps(described, sort_keys=True)}  # one key: several have no order in the file
    # as bytes, because safetensors' own writer hides why it failed
    (folder / "model.safetensors").write_bytes(save(_own_memory(model.state_dict()), metadata=stored))
    about = {"format": FORMAT, "vitrim": __version__, **described, "initialised_from": model.initialised_from}
    write_json(folder / "model.json", {**about, "sha256": sha256(folder / "model.safetensors")})


@overload
def load_model(path: Path | str) -> Network: ...
@overload
def load_model(path: Path | str, into: nn.Module) -> Adapted: ...
def load_model(path: Path | str, into: nn.Module | None = None) -> Network | Adapted:
    """Load a network that `save_model` wrote. It is in eval mode; vitrim's own networks are on the CPU.

    For an adapted model, pass `into`: the model of the other library, built as before truncation. Its weights do not
    matter, and it is not changed.

    Raises WeightsError if the folder holds no network, if its tensors do not fit its description, or if the checksum
    of the tensor file is wrong. Older checkpoints without a checksum are loaded without this check.

    Example:
        >>> import vitrim
        >>> network = vitrim.load_model("network")
        >>> network.depth, network.training
        (1, False)
    """
    folder = Path(path)
    description = _read_description(folder)
    if "adapted" in description:
        return _load_adapted(folder, description, into)
    if into is not None:
        raise WeightsError(f"{folder} holds a vitrim network; load it without `into`")
    config = _config_in(description, folder)
    state = _read_tensors(folder, description)
    network = skeleton(NETWORKS[config.name], config)
    check_tensors(network.state_dict(), state, str(folder / "model.safetensors"))
    filled(network, state)
    network.initialised_from = description["initialised_from"]
    return network.eval()


def read_config(folder: Path) -> NetworkConfig:
    """Return the configuration of vitrim's network in `folder`, without its weights. Raises WeightsError as above."""
    return _config_in(_read_description(folder), folder)


def _config_in(description: dict[str, Any], folder: Path) -> NetworkConfig:
    try:
        return NetworkConfig.model_validate(description["network"])
    except ValidationError as error:
        raise WeightsError(f"{folder / 'model.json'}: {explain(error, NetworkConfig)}") from error


def holds_adapted(folder: Path) -> bool:
    """Whether a folder holds the weights of an adapted model, not a network of ours. Raises WeightsError as above."""
    return "adapted" in _read_description(folder)


def read_adapted(folder: Path) -> dict[str, Any]:
    """Check the files of an adapted model without its code; return its class, blocks, full depth and kept blocks.

    Raises InputError if a file is missing or damaged. Whether the tensors fit that model is not known.
    """
    description = _read_description(folder)
    with understood(folder / "model.json"):
        about = description["adapted"]
        kept, full, images = list(about["kept"]), int(about["full_depth"]), [int(size) for size in about["images"]]
        if not all(isinstance(block, int) and 1 <= block <= full for block in kept):
            raise ValueError(f"kept blocks {kept} of {full}")
    _read_tensors(folder, description)
    return {"class": str(about["class"]), "kept": kept, "full_depth": full, "images": images}


def _description_of(model: Adapted) -> dict[str, Any]:
    return {
        "class": type(model.model).__name__,
        "blocks": model.found.path,
        "full_depth": model.full_depth,
        "kept": list(model.kept),
        "token_grid": list(model.token_grid),
        "images": list(model.example.shape[1:]),
    }


def _load_adapted(folder: Path, description: dict[str, Any], into: nn.Module | None) -> Adapted:
    about = description["adapted"]
    if into is None:
        raise WeightsError(
            f"{folder} holds the weights of a {about['class']} of another library, not its code; "
            f"build that model as it was before truncation and call load_model(path, into=model), or give a command "
            f"--model"
        )
    inner = into.model if isinstance(into, Adapted) else into
    example = torch.empty(2, *about["images"], device="meta")
    try:
        whole = adapt(inner, blocks=about["blocks"], token_grid=tuple(about["token_grid"]), example=example)
    except WeightsError:
        raise
    except InputError as error:
        raise WeightsError(f"`into` does not fit {folder}: {error}") from error
    if not isinstance(whole, Adapted) or whole.depth != about["full_depth"]:
        raise WeightsError(
            f"{folder} holds a {about['class']} that had {about['full_depth']} blocks at {about['blocks']}; "
            f"`into` is a {type(inner).__name__} with {whole.depth} blocks"
        )
    adapted = whole.keep_blocks(about["kept"])
    state = _read_tensors(folder, description)
    check_tensors(adapted.state_dict(), state, str(folder / "model.safetensors"))
    adapted.load_state_dict(state)
    adapted.initialised_from = description["initialised_from"]
    return adapted.eval()


def _own_memory(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, contiguous and on the CPU. Tensors that share memory (tied weights) are copied for safetensors."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        out[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(out[name].untyped_storage().data_ptr())
    return out


def _read_tensors(folder: Path, description: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    try:
        if description.get("sha256", found := sha256(path)) != found:
            raise WeightsError(
                f"{path} is damaged or was changed: its SHA-256 begins with {found[:12]}, model.json says "
                f"{str(description['sha256'])[:12]}; copy the folder again from where it was saved"
            )
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get(DESCRIPTION)
        described = {key: description[key] for key in ("network", "adapted") if key in description}
        if stored is not None and json.loads(stored) != described:
            raise WeightsError(
                f"{folder / 'model.json'} was changed: it describes another network than {path.name} was saved from; "
                f"copy the folder again from where it was saved"
            )
        return load_file(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # safetensors raises many kinds, more with each version
        raise WeightsError(f"cannot read {path}: {short_reason(error)}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not folder.exists():
        raise WeightsError(f"no network in {folder}: it does not exist")
    if not path.is_file():
        raise WeightsError(f"no network in {folder}: model.json is missing")
    try:
        description = parse_json(path)
    except InputError as error:
        raise WeightsError(str(error)) from error
    known = isinstance(description, dict) and {"format", "initialised_from"} <= set(description)
    if not known or not {"network", "adapted"} & set(description):
        raise WeightsError(f"{path} does not describe a network of vitrim")
    unknown = sorted(set(description) - KEYS)
    if unknown:
        raise WeightsError(f"{path} has the unknown key {unknown[0][:80]!r}; vitrim does not write it")
    if description["format"] != FORMAT:
        raise WeightsError(f"{path} has format {description['format']}; this version of vitrim reads format {FORMAT}")
    return description
