"""A network on disk: a folder of model.safetensors and model.json, from which it is built again."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vitrim import __version__
from vitrim.config import NetworkConfig, explain
from vitrim.errors import InputError
from vitrim.files import replacing, write_json
from vitrim.models.factory import NETWORKS
from vitrim.models.network import Network, check_tensors, expected_state, rebuilt

FORMAT = 1
"""Changes when an older vitrim could no longer read what this one writes."""


def save_model(model: Network, path: Path | str) -> None:
    """Write `model` into the folder `path`, whole or not at all; what is there already is replaced.

    The same weights give the same bytes.
    """
    with replacing(Path(path)) as folder:
        folder.mkdir(parents=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(
            folder / "model.json",
            {
                "format": FORMAT,
                "vitrim": __version__,
                "network": model.config.model_dump(mode="json"),
                "initialised_from": model.initialised_from,
            },
        )


def load_model(path: Path | str) -> Network:
    """Read a network written by `save_model`; it is on the CPU, in eval mode.

    Raises InputError where the folder does not hold one, or its tensors do not fit its description.
    """
    folder = Path(path)
    description = _description(folder)
    try:
        config = NetworkConfig.model_validate(description["network"])
    except ValidationError as error:
        raise InputError(f"{folder / 'model.json'}: {explain(error)}") from error
    try:
        state = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {folder / 'model.safetensors'}: {error}") from error
    check_tensors(expected_state(NETWORKS[config.name], config), state, str(folder / "model.safetensors"))
    network = rebuilt(NETWORKS[config.name], config, state)
    network.initialised_from = description["initialised_from"]
    return network.eval()


def _description(folder: Path) -> dict[str, str]:
    path = folder / "model.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no network in {folder}: model.json is missing") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(description, dict) or not {"format", "network", "initialised_from"} <= set(description):
        raise InputError(f"{path} does not describe a network of vitrim")
    if description["format"] != FORMAT:
        raise InputError(f"{path} is of format {description['format']}; this vitrim reads format {FORMAT}")
    return description
