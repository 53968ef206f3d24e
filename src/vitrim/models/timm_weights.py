"""Loads weights with timm's own loaders and copies them, tensor by tensor, into our networks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import timm
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache
from torch import nn

from vitrim.errors import InputError, WeightsError
from vitrim.models.backbones import create_backbone
from vitrim.models.dry_run import without_data
from vitrim.models.network import Network, State
from vitrim.models.state_dicts import read_state
from vitrim.models.vit import SIZES

UNUSED = r"(head|head_dist|pre_logits|fc_norm|fc|classifier|head_drop)\..*|cls_token|blocks\.\d+\..*"
"""Tensors of a timm file that vitrim does not use: classifier, class token, blocks beyond the network's depth."""

HUB_SECONDS = 5
"""Time limit in seconds for an answer of timm's hub. After it, the hub counts as unreachable."""


@dataclass(frozen=True)
class Source:
    """Source of weights: their timm name, and the local file (None for timm's hub)."""

    name: str
    file: Path | None


def load_vit(network: Network, source: Source) -> None:
    """Fill the ViT of `network` (and TransUNet's stem) from `source`. Raises WeightsError if the weights do not fit.

    timm resamples the position embeddings to the network's token grid and adapts input convolutions to its channels.
    The class token and its position are dropped. Blocks beyond the network's depth are not used.
    """
    config = network.config
    kind = network.pretrained_vit
    assert config.size is not None
    size = SIZES[config.size]
    settings: dict[str, Any] = {
        "num_classes": 0,
        "img_size": config.image_size,
        "in_chans": network.stem_channels,
        "depth": config.depth,
    }
    if source.file is None:
        theirs = from_hub(source.name, settings)
    else:
        settings |= {"embed_dim": size.dim, "num_heads": size.heads}
        theirs = _from_file(kind.architecture, source.file, settings, kind.patch)
    state = theirs.state_dict()
    tokens = network.token_grid[0] * network.token_grid[1]
    if "pos_embed" in state:
        state["pos_embed"] = state["pos_embed"][:, -tokens:]
    ours = {_vit_name(name): tensor for name, tensor in state.items() if not re.fullmatch(r"cls_token|head\..*", name)}
    wanted = {name: t for name, t in network.state_dict().items() if name.startswith(("vit.", "stem."))}
    _fill(network, wanted, ours, source)


def load_cnn(network: Network, source: Source) -> None:
    """Fill the network's CNN from `source`. Raises WeightsError if the weights do not fit."""
    config = network.config
    settings: dict[str, Any] = {}
    if source.file is not None:
        if source.file.suffix == ".npz":
            raise WeightsError(f"{source.file}: weights of a CNN are read from safetensors or pth, not from npz")
        state = read_state(source.file)
        full = timm.create_model(config.backbone, num_classes=0)
        _check_names(full.state_dict(), state, source.file)
        settings = {"pretrained_cfg_overlay": {"state_dict": state, "custom_load": False}}
    name = config.backbone if source.file else source.name
    if source.file is None and name.split(".")[0] != config.backbone.split(".")[0]:
        raise WeightsError(f"pretrained: {name} does not hold weights of the backbone {config.backbone}")
    try:
        with _quiet_hub():
            cnn, _ = create_backbone(
                name, network.stem_channels, config.width, config.image_size, pretrained=True, **settings
            )
    except Exception as error:
        raise unusable(source, error) from error
    own = network.get_submodule(str(network.pretrained_cnn))
    _fill(own, own.state_dict(), cnn.state_dict(), source)


def _vit_name(name: str) -> str:
    """Name in vitrim's state dict for timm's `name`."""
    if name.startswith("patch_embed.backbone."):
        return name.replace("patch_embed.backbone.", "stem.cnn.")
    return "vit." + name.replace("patch_embed.proj.", "patch_embed.")


def from_hub(name: str, settings: dict[str, Any]) -> nn.Module:
    """Make timm's model `name` with the weights of timm's hub. Raises WeightsError if it cannot get them."""
    try:
        with _quiet_hub():
            return timm.create_model(name, pretrained=True, pretrained_strict=False, **settings)
    except Exception as error:
        raise unusable(Source(name, None), error) from error


def _from_file(architecture: str, file: Path, settings: dict[str, Any], patch: int) -> nn.Module:
    try:
        if file.suffix == ".npz":
            return _from_npz(architecture, file, settings, patch)
        state = read_state(file)
        with without_data():
            wanted = timm.create_model(architecture, **settings).state_dict()
        _check_names(wanted, state, file)
        _check_patch(tuple(state["patch_embed.proj.weight"].shape[-2:]), patch, file)
        overlay = {"state_dict": state, "custom_load": False}
        return timm.create_model(
            architecture, pretrained=True, pretrained_cfg_overlay=overlay, pretrained_strict=False, **settings
        )
    except InputError:
        raise
    except Exception as error:
        raise unusable(Source(architecture, file), error) from error


def _from_npz(architecture: str, file: Path, settings: dict[str, Any], patch: int) -> nn.Module:
    with np.load(file, allow_pickle=False) as content:
        kernels = [name for name in content.files if name.endswith("embedding/kernel")]
        if not kernels:
            raise WeightsError(f"{file} is not one of Google's ViT files: it has no embedding/kernel")
        _check_patch(content[kernels[0]].shape[:2], patch, file)
    model = timm.create_model(architecture, **settings)
    model.load_pretrained(str(file))
    return model


def _check_names(wanted: State, found: State, file: Path) -> None:
    """Raise WeightsError for a file of another architecture. timm's loader, which is not strict, would accept it."""
    missing = [n for n in wanted if n not in found and not re.fullmatch(UNUSED.replace(r"|blocks\.\d+\..*", ""), n)]
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    surplus = [name for name in found if name not in wanted and not re.fullmatch(UNUSED, name)]
    said = [f"{what}: {few(names)}" for what, names in (("missing", missing), ("unexpected", surplus)) if names]
    if said:
        raise WeightsError(f"{file} holds weights of another network; tensors {'; tensors '.join(said)}")


def few(names: list[str], most: int = 5) -> str:
    """Return the first names in one text, and the number of the others."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _check_patch(found: tuple[int, ...], expected: int, file: Path) -> None:
    if tuple(found) != (expected, expected):
        raise WeightsError(f"{file} has patches of {found[0]}×{found[1]}; this network has {expected}×{expected}")


def _fill(part: nn.Module, wanted: State, found: State, source: Source) -> None:
    misfits = sorted(set(wanted) ^ set(found)) or [n for n, t in wanted.items() if t.shape != found[n].shape]
    if misfits:
        raise WeightsError(
            f"pretrained: {source.file or source.name} does not fit this network: tensors {few(misfits)}"
        )
    part.load_state_dict(found, strict=False)


def unusable(source: Source, error: Exception) -> WeightsError:
    """Make the error for weights that timm cannot load because of `error`."""
    root: BaseException = error
    while source.file is None and (earlier := root.__cause__ or (not root.__suppress_context__ and root.__context__)):
        root = earlier
    reason = next((line.strip() for line in str(root).splitlines() if line.strip()), type(root).__name__)
    if source.file:
        return WeightsError(f"pretrained: {source.file} does not fit this network: {reason}")
    return WeightsError(f"pretrained: cannot get {source.name} from timm's hub ({reason}); {_by_hand([source.name])}")


def not_at_hand(names: list[str]) -> str:
    """Say which of these weights of timm's hub are missing and cannot be fetched, and what to do; "" if none.

    The hub gets `HUB_SECONDS` to answer, and is asked only for weights that are not in its cache.
    """
    missing = [name for name in names if timm.get_pretrained_cfg(name).hf_hub_id and not _is_cached(name)]
    if not missing or (not hub.HF_HUB_OFFLINE and _answers(hub.ENDPOINT)):
        return ""
    why = "timm's hub is switched off (HF_HUB_OFFLINE)" if hub.HF_HUB_OFFLINE else f"no answer from {hub.ENDPOINT}"
    return f"cannot get {', '.join(missing)} from timm's hub ({why}); {_by_hand(missing)}"


def _is_cached(name: str) -> bool:
    return any(isinstance(try_to_load_from_cache(*place), str) for place in _places(name))


def _places(name: str) -> list[tuple[str, str]]:
    """Repository and file of weights in timm's hub; the file that is usual comes first."""
    config = timm.get_pretrained_cfg(name)
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return [(str(config.hf_hub_id), str(file)) for file in files]


def _by_hand(names: list[str]) -> str:
    """Say how to bring weights of timm's hub to a machine without network."""
    places = {name: _places(name)[0] for name in names}
    commands = ", ".join(f"`hf download {repository} {file}`" for repository, file in places.values())
    copies = ", ".join(f"{name}{Path(file).suffix}" for name, (_, file) in places.items())
    return (
        f"on a machine with network run {commands}; copy what this wrote into a folder here, as {copies}; then set "
        "pretrained to this folder, or to false to start from scratch"
    )


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Suppress the hub client's warnings about each attempt. The error message contains the last failure.

    If the hub does not answer, the client is set to offline: otherwise it would retry for a minute for every file.
    Files that were downloaded before are still found.
    """
    log = logging.getLogger("huggingface_hub")
    level, offline = log.level, hub.HF_HUB_OFFLINE
    log.setLevel(logging.ERROR)
    silent = not offline and not _answers(hub.ENDPOINT)
    hub.HF_HUB_OFFLINE = offline or silent
    try:
        yield
    except OSError:
        if silent:
            raise ConnectionError(f"no answer from {hub.ENDPOINT}") from None
        raise
    finally:
        log.setLevel(level)
        hub.HF_HUB_OFFLINE = offline


def _answers(address: str) -> bool:
    """True if the server answers within HUB_SECONDS, even with an HTTP error."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=HUB_SECONDS).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True
