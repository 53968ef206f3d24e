"""`vitrim attention`: where one network looks, ours or timm's, on a data set or on a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitrim.attention.decision import Decision
from vitrim.beside import cases_for, read_beside
from vitrim.config import AttentionConfig, DataConfig
from vitrim.data.pictures import find_pictures, read_picture
from vitrim.data.preprocess import Preparation
from vitrim.data.readers import load_volume
from vitrim.data.split import Split
from vitrim.errors import InputError
from vitrim.look import CaseImages, Shown, look_at, spread
from vitrim.models.checkpoint import load_model
from vitrim.models.factory import build
from vitrim.models.network import Network
from vitrim.progress import Reporter, Stage, silent

TIMM = "timm:"


@dataclass(frozen=True)
class Subject:
    """A network to look at, itself untrained, and how it is called."""

    name: str
    network: nn.Module
    untrained: nn.Module


@dataclass(frozen=True)
class Gallery:
    """Cases to look at: how many images come, and a way to go through them from the start."""

    cases: list[str]
    images: Callable[[Stage], Iterator[CaseImages]]
    shown: Shown


def examine(
    source: str,
    data: Path,
    out: Path,
    config: AttentionConfig,
    reporter: Reporter,
    *,
    layout: DataConfig | None = None,
    weights: str | None = None,
    seed: int = 0,
) -> tuple[Subject, Gallery, Decision]:
    """Profile a network's attention on `data`, decide its depth, and write it all into the new folder `out`.

    `source` is the folder of a checkpoint of ours, or `timm:NAME`, whose `weights` are a file, `none` (random), or by
    default those of timm's hub. `data` is a data set for ours (in the layout of the checkpoint's study, or `layout`),
    a folder of pictures for timm's. Only training cases of the checkpoint's own study are looked at.

    Raises InputError for anything that is wrong with these.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder with --out")
    if source.startswith(TIMM):
        subject, settings = _from_timm(source.removeprefix(TIMM), weights, seed)
        gallery = _pictures(data, settings, config)
    else:
        subject = _ours(Path(source), seed)
        assert isinstance(subject.network, Network)
        gallery = _volumes(Path(source), subject.network, data, layout, config)
    with reporter.stage(f"attention of {subject.name}", 2 * len(gallery.cases)) as stage:
        decision = look_at(
            subject.network, subject.untrained, lambda: gallery.images(stage), gallery.shown, out, config, seed
        )
    return subject, gallery, decision


def _ours(folder: Path, seed: int) -> Subject:
    network = load_model(folder)
    torch.manual_seed(seed)
    untrained = build(network.config.model_copy(update={"pretrained": False})).eval()
    return Subject(f"{network.config.name} ({network.depth} blocks)", network, untrained)


def _from_timm(name: str, weights: str | None, seed: int) -> tuple[Subject, dict[str, Any]]:
    import timm
    from timm.data import resolve_data_config

    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}: `timm.list_models('vit*')` lists some")
    overlay = None if weights in (None, "none") else {"file": str(weights)}
    if overlay and not Path(overlay["file"]).is_file():
        raise InputError(f"no such file of weights: {weights}")
    try:
        torch.manual_seed(seed)
        untrained = timm.create_model(name, pretrained=False).eval()
        network = (
            untrained
            if weights == "none"
            else timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).eval()
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot get the weights of {name} ({reason}); give a local file with --weights FILE, "
            f"or look at it untrained with --weights none"
        ) from error
    return Subject(name, network, untrained), resolve_data_config({}, model=network)


def _pictures(folder: Path, settings: dict[str, Any], config: AttentionConfig) -> Gallery:
    paths = spread(find_pictures(folder), config.cases)
    size = (int(settings["input_size"][1]), int(settings["input_size"][2]))

    def read(path: Path) -> np.ndarray:
        return read_picture(path, size, settings["mean"], settings["std"])

    def images(stage: Stage) -> Iterator[CaseImages]:
        for path in paths:
            yield path.stem, torch.from_numpy(read(path)[None]), None
            stage.advance(note=path.name)

    return Gallery([path.stem for path in paths], images, Shown(paths[0].stem, 0, read(paths[0])))


def _volumes(
    checkpoint: Path, network: Network, folder: Path, layout: DataConfig | None, config: AttentionConfig
) -> Gallery:
    """Cases of a data set, prepared as the checkpoint's study prepared them unless `layout` says otherwise."""
    beside = read_beside(checkpoint)
    data, case_set = cases_for(checkpoint, network, beside, folder, layout)
    split = beside.split or Split((), ())
    known = [case for case in case_set.ids if case in split.train]
    kept = {*split.validation, *split.tuning}
    cases = spread(known or [case for case in case_set.ids if case not in kept], config.cases)
    if not cases:
        raise InputError(
            f"{folder} holds validation and tuning cases of {checkpoint} only; attention is measured on others"
        )
    preparation = Preparation.from_config(data)

    def images(stage: Stage) -> Iterator[CaseImages]:
        for case in cases:
            prepared = preparation.apply(load_volume(case_set.case(case), case_set))
            chosen = spread(list(range(len(prepared.images))), config.slices)
            yield case, torch.from_numpy(prepared.images[chosen]), prepared.pixel_spacing
            stage.advance(note=case)

    first = preparation.apply(load_volume(case_set.case(cases[0]), case_set))
    middle = len(first.images) // 2
    return Gallery(cases, images, Shown(cases[0], middle, first.images[middle]))


def explorer_images(gallery: Gallery, count: int = 4) -> tuple[list[str], np.ndarray]:
    """The first image of a few cases, (n, C, H, W), for the explorer."""
    names, images = [], []
    wanted = set(spread(gallery.cases, count))
    for case, slices, _ in gallery.images(silent(len(gallery.cases))):
        if case in wanted:
            names.append(case)
            images.append(slices[len(slices) // 2].numpy())
    return names, np.stack(images)
