"""Loads ImageNet weights into a network. Missing weights are an error; random weights never replace them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from vitrim.config.network_schema import NetworkConfig
from vitrim.errors import WeightsError
from vitrim.models.network import Network
from vitrim.models.timm_weights import Source, load_cnn, load_vit, not_at_hand
from vitrim.models.vit_weights import load_timm_vit

RANDOM = "random"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")


@dataclass(frozen=True)
class Part:
    """A part of a network that can start from ImageNet weights."""

    label: str
    hub: str | None
    """Name of its weights in timm's hub; None if there are none."""
    google: str | None
    """Name of Google's weights file for size base; None if there is none."""
    load: Callable[[Network, Source], None]
    """Fills this part of a network. Raises WeightsError if the weights do not fit."""


def initialise(network: Network) -> None:
    """Fill `network` with the weights that its configuration names in `pretrained`. Record them in `initialised_from`.

    `true` means timm's hub. A text is one of three: the path of a file (safetensors or pth from timm, npz from Google);
    the path of a folder with one such file for each part, under its timm name; or the name of a model in timm's hub.
    2D CATS has two parts and takes two texts, separated by a comma, ViT first. `random` leaves a part at its random
    weights. The state of torch's random generator does not change.

    Raises WeightsError if the weights are not available or do not fit.
    """
    parts, sources = _plan(type(network), network.config)
    said = []
    with torch.random.fork_rng(devices=[]):
        for part, source in zip(parts, sources, strict=True):
            if source:
                part.load(network, source)
            said.append(f"{part.label}: {_say(source)}")
    network.initialised_from = "; ".join(said)


def check_at_hand(networks: Iterable[tuple[type[Network], NetworkConfig]]) -> None:
    """Raise WeightsError if networks need weights that are neither here nor in a hub that answers.

    The message names all files that are missing, and how to bring them to a machine without network.
    """
    sources = [source for kind, config in networks if config.pretrained for source in _plan(kind, config)[1]]
    names = dict.fromkeys(source.name for source in sources if source is not None and source.file is None)
    if reason := not_at_hand(list(names)):
        raise WeightsError(f"pretrained: {reason}")


def _plan(kind: type[Network], config: NetworkConfig) -> tuple[list[Part], list[Source | None]]:
    """Return the parts of a network that start from weights, and where these come from."""
    parts = _parts(kind, config)
    return parts, [_source(wish, part, config) for wish, part in zip(_wishes(config, parts), parts, strict=True)]


def _parts(kind: type[Network], config: NetworkConfig) -> list[Part]:
    vit = kind.pretrained_vit
    parts = []
    if config.vit is not None:
        parts.append(Part("ViT", _tagged(config.vit), None, load_timm_vit))
    else:
        hub = vit.hub.get(str(config.size)) if config.width == 1 or not vit.with_stem else None
        parts.append(Part(vit.label, hub, vit.google, load_vit))
    if kind.pretrained_cnn is not None:
        hub = _tagged(config.backbone) if config.width == 1 else None
        cnn = Part("CNN", hub, None, load_cnn)
        parts = [*parts, cnn] if config.depth else [cnn]  # without blocks, such a network has no ViT
    return parts


def _tagged(name: str) -> str | None:
    """Return timm's name of a model with the tag of its weights; None if there are none."""
    known = timm.get_pretrained_cfg(name)
    if not known.tag or not known.has_weights:
        return None
    return name if "." in name else f"{name}.{known.tag}"


def _wishes(config: NetworkConfig, parts: list[Part]) -> list[str | None]:
    """Requested weights for each part: None for the hub's default, or a text."""
    if config.pretrained is True:
        return [None] * len(parts)
    wishes: list[str | None] = [wish.strip() for wish in str(config.pretrained).split(",")]
    if len(wishes) == 1 and (len(parts) == 1 or Path(str(wishes[0])).is_dir()):
        return wishes * len(parts)
    if len(wishes) != len(parts):
        labels = " and ".join(part.label for part in parts)
        raise WeightsError(
            f"pretrained: {config.name} needs weights for {labels}, "
            f"got {config.pretrained!r}; give a folder, or a file (or `{RANDOM}`) for each, separated by a comma"
        )
    return wishes


def _source(wish: str | None, part: Part, config: NetworkConfig) -> Source | None:
    """Find the weights of `part`; None if it stays random. Raises WeightsError if there are none."""
    if wish == RANDOM:
        return None
    if wish is None:
        if part.hub is None:
            which = f"vit {config.vit}" if config.vit else f"size {config.size}"
            raise WeightsError(
                f"pretrained: there are no published ImageNet weights for the {part.label} of {config.name} with "
                f"{which} and width {config.width:g}; set pretrained to false, or to a local file"
            )
        return Source(part.hub, None)
    path = Path(wish)
    if path.is_dir():
        return Source(part.hub or wish, _file_in(path, part))
    if path.is_file():
        return Source(part.hub or path.stem, path)
    if not path.suffix or path.suffix not in SUFFIXES:
        if timm.is_model(wish.split(".")[0]):
            if part.load is load_timm_vit and wish.split(".")[0] != str(config.vit).split(".")[0]:
                raise WeightsError(f"pretrained: {wish} does not hold weights of {config.vit}")
            return Source(wish, None)
        raise WeightsError(f"pretrained: {wish!r} is neither a file, nor a folder, nor a timm model")
    raise WeightsError(f"pretrained: there is no file {wish}")


def _file_in(folder: Path, part: Part) -> Path:
    """Find the file in `folder` that has the name of the part's weights. Raises WeightsError if there is none."""
    if part.hub is None:
        raise WeightsError(
            f"pretrained: weights for the {part.label} of this network have no standard file name; give the file itself"
        )
    architecture = part.hub.split(".")[0]
    stems = [part.hub, architecture]
    if part.google is not None and "_base_" in architecture:
        stems.append(part.google)
    for stem in stems:
        for suffix in SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise WeightsError(
        f"pretrained: {folder} holds no weights for the {part.label}: expected {' or '.join(stems)}, "
        f"ending in {', '.join(SUFFIXES)}"
    )


def _say(source: Source | None) -> str:
    if source is None:
        return RANDOM
    if source.file is None:
        return f"{source.name} (timm hub)"
    digest = hashlib.sha256(source.file.read_bytes()).hexdigest()[:12]
    return f"file {source.file.name} (sha256 {digest}…)"
