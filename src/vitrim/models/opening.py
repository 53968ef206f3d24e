"""Opens any network on disk: one of ours, or a model of another library that the user's code builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from vitrim.config.schema import DataConfig
from vitrim.errors import InputError, WeightsError
from vitrim.models.adapt import Adapted, adapt
from vitrim.models.checkpoint import holds_adapted, load_model
from vitrim.models.examples import example_for
from vitrim.models.factory import build
from vitrim.models.network import Network, check_tensors
from vitrim.models.state_dicts import read_state
from vitrim.models.user_models import ModelSource, build_model


def open_network(
    checkpoint: Path, model: ModelSource | None = None, prepared: DataConfig | None = None
) -> Network | Adapted:
    """Return the network in `checkpoint`, in eval mode, on the CPU.

    Without `model`, `checkpoint` is the folder of a network of ours. With it, `checkpoint` is the folder of an adapted
    model, or a file with the state dict of the model that `model` builds, which is read as data, not as code. Such a
    model segments images (B, C, H, W) into logits (B, K, H, W). It is adapted to images of the size that `prepared`
    says, by default of the size that it states.

    Raises InputError if the checkpoint and the model do not belong together, or if the model does not segment images.
    """
    if model is None:
        if checkpoint.is_file():
            raise WeightsError(
                f"{checkpoint} is a file, not the folder of a network; for weights of another library's model, say "
                f"with --model what builds it"
            )
        return load_model(checkpoint)
    if not needs_model(checkpoint):
        raise WeightsError(f"{checkpoint} holds a network of vitrim's own, which needs no --model: leave it out")
    built = build_model(model)
    if checkpoint.is_dir():
        adapted: Network | Adapted = load_model(checkpoint, into=built)
    else:
        expected = built.state_dict()
        state = _renamed(read_state(checkpoint), expected)
        check_tensors(expected, state, str(checkpoint))
        built.load_state_dict(state)
        adapted = adapted_to(built, None if prepared is None else prepared.image_size)
        adapted.initialised_from = checkpoint.name
    if isinstance(adapted, Network):
        raise InputError(f"--model builds a {type(adapted).__name__} of vitrim's own; save it with vitrim.save_model")
    _check_segments(adapted)
    return adapted.eval()


def needs_model(checkpoint: Path) -> bool:
    """Whether a checkpoint holds weights whose model the user's code must build."""
    return checkpoint.is_file() or holds_adapted(checkpoint)


def weights_file(checkpoint: Path) -> Path:
    """The file of tensors of a checkpoint."""
    return checkpoint if checkpoint.is_file() else checkpoint / "model.safetensors"


def adapted_to(model: torch.nn.Module, image_size: tuple[int, int] | None) -> Network | Adapted:
    """Return `model` adapted to images of `image_size`; of the size that it states without one."""
    example = example_for(model)
    if image_size is not None and example.ndim == 4:
        example = torch.empty(2, example.shape[1], *image_size, device="meta")
    return adapt(model, example=example)


def untrained_like(network: Network | Adapted, model: ModelSource | None, seed: int) -> Network | Adapted:
    """Build a network once more, from `seed`, without trained weights; a model of another library as `model` does."""
    torch.manual_seed(seed)
    if isinstance(network, Network):
        return build(network.config.model_copy(update={"pretrained": False})).eval()
    assert model is not None
    whole = adapt(build_model(model), example=network.example, token_grid=network.token_grid, blocks=network.found.path)
    return whole.keep_blocks(network.kept).eval()


def _check_segments(adapted: Adapted) -> None:
    """Raise InputError unless the model maps images (B, C, H, W) to logits (B, K, H, W)."""
    if adapted.example.ndim != 4:
        raise InputError(
            f"{adapted.title} takes volumes, and the commands read slices: in Python, use vitrim.adapt, "
            f"vitrim.profile_attention and vitrim.truncate"
        )
    _ = adapted.num_classes


def _renamed(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without the one prefix (`model.`, `net.`) that a training framework put before every name."""
    name = next(iter(expected), "")
    prefix = next((found.removesuffix(name) for found in state if found.endswith(f".{name}")), "")
    if name in state or not all(found.startswith(prefix) for found in state):
        return dict(state)
    return {found.removeprefix(prefix): tensor for found, tensor in state.items()}
