"""The controls `longrange` and `chain`: checks whether a network without its transformer can see what it needs."""

from __future__ import annotations

import torch

from vitrim.config.names import NetworkName
from vitrim.config.schema import StudyConfig
from vitrim.data.phantoms.chain import SHAPE, gap, planted_depth
from vitrim.data.phantoms.longrange import PLACES, distance
from vitrim.models.factory import NETWORKS, build
from vitrim.models.receptive_field import receptive_reach
from vitrim.studies.plan import network_config


def reach_lines(study: StudyConfig) -> list[str]:
    """Return one line per network: the reach of its CNN and the distance to what it needs, in pixels.

    For `chain`, a line with the number of places and the planted depth comes first. Networks that have no form without
    a transformer get no line. Returns no lines for studies on other data.
    """
    phantom = study.data.phantom
    if phantom is None or phantom.kind not in ("longrange", "chain"):
        return []
    lines = []
    if phantom.kind == "chain":
        lines.append(
            f"chain: {phantom.places} patches in use, up to {phantom.hops} links: {planted_depth(phantom.hops)} blocks "
            "are planted"
        )
    return lines + [_line(study, network) for network in study.networks if NETWORKS[network].shallowest == 0]


def _line(study: StudyConfig, network: NetworkName) -> str:
    size = study.data.image_size
    config = network_config(study, network, num_classes=3, channels=1).model_copy(update={"pretrained": False})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reach = receptive_reach(build(config).truncated(0), size)
    phantom = study.data.phantom
    if phantom is not None and phantom.kind == "chain":
        far, what = gap(phantom.shape or SHAPE), "a linked patch"
        within = "the CNN alone sees it, so train depth 0 too, to show whether the CNN can follow a link"
    else:
        far, what = round(distance(size, phantom.places if phantom else PLACES)), "a disc's mark"
        within = "the CNN alone may connect them, so this study is no control of the transformer"
    end = "only the transformer can connect them" if reach < far else within
    return f"{network} without its transformer reaches {reach} pixels; {what} is at least {far} away: {end}"
