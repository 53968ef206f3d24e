"""Builds a network from a name or a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from vitrim.config.names import DecoderForm, NetworkName, StemForm, ViTSizeName
from vitrim.config.network_schema import NetworkConfig
from vitrim.config.reading import explain
from vitrim.errors import ConfigurationError
from vitrim.models.cats2d import CATS2D
from vitrim.models.network import Network
from vitrim.models.pretrained import check_at_hand, initialise
from vitrim.models.transunet import TransUNet
from vitrim.models.unetr2d import UNETR2D

NETWORKS: dict[str, type[Network]] = {"transunet": TransUNet, "cats2d": CATS2D, "unetr2d": UNETR2D}


def create_model(
    name: NetworkName,
    *,
    num_classes: int,
    depth: int | None = None,
    size: ViTSizeName | None = None,
    vit: str | None = None,
    image_size: int | tuple[int, int] = 224,
    in_chans: int = 3,
    pretrained: bool | str = False,
    backbone: str = "resnet50",
    width: float = 1.0,
    stem: StemForm = "timm",
    taps: tuple[int, int, int, int] | None = None,
    decoder: DecoderForm = "paper",
) -> Network:
    """Build `transunet`, `cats2d` or `unetr2d`: images (B, in_chans, H, W) to logits (B, num_classes, H, W).

    The ViT has a `size` ("base" by default), or is timm's model `vit`. A `depth` below its number of blocks gives the
    truncated network (paper, 3.8). `vitrim.config.network_schema.NetworkConfig` explains the other
    arguments. Weights are random, from torch's global generator, or ImageNet weights if `pretrained` is set.

    Raises ConfigurationError, with the name of the argument, for a value that is not possible. Raises WeightsError if
    the ImageNet weights are not available or do not fit.

    Example:
        >>> import torch, vitrim
        >>> network = vitrim.create_model("transunet", num_classes=9, size="micro", width=0.25, image_size=64)
        >>> network(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 9, 64, 64])
    """
    choices: dict[str, Any] = dict(locals())
    try:
        config = NetworkConfig.model_validate(choices)
    except ValidationError as error:
        raise ConfigurationError(f"cannot build this network: {explain(error, NetworkConfig)}") from error
    return build(config)


def build(config: NetworkConfig) -> Network:
    """Build the network and load the weights that `config` describes. Raises InputError if this is not possible."""
    kind = NETWORKS[config.name]
    check_at_hand([(kind, config)])  # before the network, which takes long to build
    network = kind(config)
    if config.pretrained:
        initialise(network)
    return network
