"""Attention analysis of one network: measures it before and after training, decides its depth, stores the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vitrim.attention.decision import RULE_FILE, Decision
from vitrim.attention.forward import CaseImages
from vitrim.attention.maps import StoredMaps, raw_maps
from vitrim.attention.profiling import profile_attention
from vitrim.attention.rule import decide_depth
from vitrim.config.schema import AttentionConfig
from vitrim.files import replacing
from vitrim.hardware import Hardware


@dataclass(frozen=True)
class ExampleSlice:
    """The slice whose attention maps are stored. `image` is (C, H, W)."""

    case: str
    number: int
    image: np.ndarray


def analyse_network(
    network: nn.Module,
    untrained: nn.Module | None,
    images: Callable[[], Iterable[CaseImages]],
    example: ExampleSlice,
    folder: Path,
    config: AttentionConfig,
    seed: int,
    hardware: Hardware,
) -> Decision:
    """Write profile.json, profile.csv, untrained/, maps.npz and attention_rule.json into `folder`, all or none of them.

    The networks run on `hardware`, in its precision. `untrained` is the same network before training; without it there
    is no untrained/. `images` is called once for each network. `vitrim.attention.figures.write_figures` draws the
    figures from these files.

    Raises InputError for the same reasons as `profile_attention`.
    """
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        with hardware.running(network):
            profile = profile_attention(network, images())
            maps = raw_maps(network, torch.from_numpy(example.image[None]), blocks=None)
        baseline = None
        if untrained is not None:
            with hardware.running(untrained):
                baseline = profile_attention(untrained, images())
        decision = decide_depth(
            profile,
            measure=config.measure,
            head=config.head,
            threshold=config.threshold,
            untrained=baseline,
            seed=seed,
        )
        rows, columns = profile.grid  # slices, not volumes
        profile.save(unfinished)
        if baseline is not None:
            baseline.save(unfinished / "untrained")
        decision.save(unfinished / RULE_FILE)
        StoredMaps(
            case=example.case,
            slice=example.number,
            image=example.image.mean(axis=0),
            grid=(rows, columns),
            blocks=tuple(maps),
            maps=np.stack(list(maps.values())),
            shown=tuple(block for block in config.maps if block in maps),
        ).save(unfinished / "maps.npz")
    return decision
