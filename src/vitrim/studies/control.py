"""The control `longrange`: checks whether a network without its transformer can see the mark that it needs."""

from __future__ import annotations

import torch

from vitrim.config.names import NetworkName
from vitrim.config.schema import StudyConfig
from vitrim.data.phantoms.longrange import PLACES, distance
from vitrim.models.factory import NETWORKS, build
from vitrim.models.receptive_field import receptive_reach
from vitrim.studies.plan import network_config


def reach_lines(study: StudyConfig) -> list[str]:
    """Return one line per network: the reach of its CNN and the distance from a disc to its mark, in pixels.

    Networks that have no form without a transformer get no line. Returns no lines for studies on other data.
    """
    if study.data.phantom is None or study.data.phantom.kind != "longrange":
        return []
    return [_line(study, network) for network in study.networks if NETWORKS[network].shallowest == 0]


def _line(study: StudyConfig, network: NetworkName) -> str:
    size = study.data.image_size
    config = network_config(study, network, num_classes=3, channels=1).model_copy(update={"pretrained": False})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reach = receptive_reach(build(config).truncated(0), size)
    far = round(distance(size, study.data.phantom.places if study.data.phantom else PLACES))
    said = f"{network} without its transformer reaches {reach} pixels; a disc's mark is at least {far} away"
    if reach < far:
        return f"{said}: only the transformer can connect them"
    return f"{said}: the CNN alone may connect them, so this study is no control of the transformer"
