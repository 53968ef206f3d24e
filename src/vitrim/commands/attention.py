"""`vitrim attention`: where each block of one network attends, on a data set or on a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from vitrim.attention.analysis import ExampleSlice, analyse_network
from vitrim.attention.decision import Decision
from vitrim.attention.figures import write_figures
from vitrim.attention.forward import CaseImages
from vitrim.attention.profile import AttentionProfile
from vitrim.commands.provenance import cases_for, new_folder, prepared_data, read_provenance, with_split
from vitrim.compression.depth_decision import DECISION, DepthDecision
from vitrim.compression.depth_rules import answers_of, changed_by_training, stored_evidence, untrained_answers
from vitrim.compression.exchange_curve import ExchangeCurve
from vitrim.compression.measure_exchange import measure_exchange
from vitrim.config.names import DecidingMeasure, Device, Head
from vitrim.config.reading import Study, checked_name, data_section, explain
from vitrim.config.schema import AttentionConfig, DataConfig
from vitrim.data.cases import CaseSet
from vitrim.data.picture_folder import find_pictures, read_picture
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import LAYOUTS
from vitrim.data.sampling import evenly_spaced
from vitrim.data.split import Split
from vitrim.data.volumes import load_volume
from vitrim.errors import ConfigurationError, DataError, WeightsError
from vitrim.hardware import Hardware, sharing_cores
from vitrim.models.adapt import Adapted
from vitrim.models.network import Network
from vitrim.models.opening import open_network, untrained_like
from vitrim.models.user_models import ModelSource
from vitrim.progress import Reporter, Stage, silent
from vitrim.report.html_page import write_explorer_page
from vitrim.studies.snapshots import write_explorer

TIMM = "timm:"
"""Before the name of a timm model, in place of a checkpoint."""
MARGIN = 0.05
"""Non-inferiority margin of the exchange cut-off (5 %, as in the paper)."""
EXCHANGE_CASES = 20
"""Largest number of cases on which exchange of tokens is measured."""


@dataclass(frozen=True)
class Subject:
    """A network whose attention is measured, the same network untrained, and its name for people."""

    name: str
    network: nn.Module
    untrained: nn.Module


@dataclass(frozen=True)
class AttentionResult:
    """What `analyse_attention` found; everything is in `folder`."""

    folder: Path
    rule: Decision
    """Answer of the attention rule."""
    decision: DepthDecision
    """Every rule's answer, and the depth that is proposed. No smaller network was trained."""
    exchange: ExchangeCurve | None
    """Change in Dice, or in the labels, without exchange of tokens; None for a model that does not segment."""

    def lines(self) -> list[str]:
        """Return the result as lines to print."""
        lines = [self.rule.sentence(), self.decision.in_words()]
        if self.exchange is not None:
            lines.append(self.exchange.sentence(self.decision.margin))
        return lines


@dataclass(frozen=True)
class Gallery:
    """The cases on which attention is measured, and a way to go through their images from the start."""

    cases: list[str]
    images: Callable[[Stage], Iterator[CaseImages]]
    example: ExampleSlice
    config: DataConfig | None = None
    case_set: CaseSet | None = None
    """How the cases are prepared, and the data set; None for pictures."""


@sharing_cores()
def analyse_attention(
    source: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    model: ModelSource | None = None,
    study: Study | None = None,
    weights: str | None = None,
    measure: DecidingMeasure = "globality",
    head: Head = "mean",
    threshold: float = 2 / 3,
    cases: int | None = None,
    slices: int | None = None,
    seed: int = 0,
    html: bool = False,
    device: Device = "auto",
    reporter: Reporter | None = None,
) -> AttentionResult:
    """Measure where each block of a network attends and what it loses without exchange between patches.

    The same as the command `vitrim attention`. It writes all of it into the new folder `out`, with the depth that
    follows as a proposal: whether it is enough only training can show. Cases without labels are compared with the
    labels of the untouched network.

    Args:
        source: folder of a network, or `timm:NAME`; with `model` also a file with a state dict.
        data: a data set for a checkpoint, a folder of pictures for timm's.
        model: what builds the model of another library whose weights `source` holds, as in `vitrim.compress`.
        study: whose data section says how the data set is prepared; by default as the checkpoint's own study did.
        weights: for timm: a file, `none` (random weights), or by default those of timm's hub.
        measure: the measure that decides, one of `vitrim.attention.measures.MEASURES`.
        head: decide by the head-averaged attention (mean), or by the most global head (max).
        threshold: a block that reaches it is global.
        cases: number of cases, evenly spaced; all training cases by default. Held-out cases never take part.
        slices: number of slices of each case, evenly spaced; all by default.
        seed: of the untrained network and of the bootstrap.
        html: also write explorer.html.
        device: where networks run; `auto` is a GPU if there is one.

    Raises:
        InputError: for anything that is wrong with these. `out` is written whole or not at all.

    Example:
        >>> import vitrim
        >>> result = vitrim.analyse_attention("network", "data", "attention", cases=2, slices=2)
        >>> print(result.rule.depth, "of", len(result.rule.blocks))
        1 of 1
    """
    hardware = Hardware.choose(checked_name(device, Device, "device"))
    out, reporter = new_folder(out), reporter or Reporter()
    config = _config(measure=measure, head=head, threshold=threshold, cases=cases, slices=slices)
    if str(source).startswith(TIMM):
        if model is not None:
            raise ConfigurationError(f"{source} names a model of timm: leave --model out")
        subject, settings = _from_timm(str(source).removeprefix(TIMM), weights, seed)
        gallery = _pictures(Path(data), settings, config)
    else:
        section = data_section(study)
        network = open_network(Path(source), model, section)
        subject = Subject(f"{network.name} ({network.depth} blocks)", network, untrained_like(network, model, seed))
        gallery = _volumes(Path(source), network, Path(data), section, config)
    curve = _exchange(subject, gallery, out, reporter, hardware)
    with reporter.stage(f"attention of {subject.name}", 2 * len(gallery.cases)) as stage:
        rule = analyse_network(
            subject.network,
            subject.untrained,
            lambda: gallery.images(stage),
            gallery.example,
            out,
            config,
            seed,
            hardware,
        )
    if curve is not None:
        curve.save(out)
    decision = _proposal(subject, rule, curve, out)
    decision.save(out / DECISION)
    with reporter.stage("figures", 1):
        write_figures(out)
    if html:
        names, images = _explorer_images(gallery)
        networks, grid = {len(rule.blocks): subject.network}, AttentionProfile.load(out).grid
        first = [0] * len(names)
        pictures = gallery.config is None or LAYOUTS[gallery.config.layout].planar
        write_explorer(
            out / "explorer.npz",
            networks,
            images,
            grid=grid,
            cases=names,
            slices=first,
            segment=False,
            pictures=pictures,
        )
        write_explorer_page(out, subject.name)
    return AttentionResult(out, rule, decision, curve)


def _exchange(
    subject: Subject, gallery: Gallery, out: Path, reporter: Reporter, hardware: Hardware
) -> ExchangeCurve | None:
    """Measure the exchange curve of a network that segments; None for others, and if it has no blocks."""
    network = subject.network
    if not isinstance(network, Network | Adapted) or gallery.case_set is None or gallery.config is None:
        return None
    if not network.depth:
        return None
    ids = tuple(evenly_spaced(gallery.cases, EXCHANGE_CASES))
    with (
        prepared_data(gallery.config, gallery.case_set, ids, out, reporter) as data,
        reporter.stage(f"exchange of tokens in {subject.name}", 2 * len(ids)) as stage,
    ):
        return measure_exchange(network, network.depth, data, ids, hardware, stage)


def _proposal(subject: Subject, rule: Decision, curve: ExchangeCurve | None, folder: Path) -> DepthDecision:
    """Every rule's answer, as far as it can be known without training; exchange proposes, else the attention rule."""
    margin, full = MARGIN, len(rule.blocks)
    evidence = stored_evidence(folder, margin)
    assert evidence is not None
    answers = answers_of(evidence)
    by_exchange = answers["exchange"]
    shallowest = getattr(subject.network, "shallowest", 0)
    proposed = rule.depth if by_exchange is None else max(by_exchange, shallowest)
    return DepthDecision(
        network=subject.name,
        full=full,
        depth=proposed,
        verdict="not shown",
        margin=margin,
        proposed=proposed,
        rule="globality" if by_exchange is None else "exchange",
        proposed_on="training",
        rules=dict(answers),
        untrained=untrained_answers(rule),
        changed_by_training=changed_by_training(rule),
        exchange_percent=None if curve is None else curve.without_any,
        judged=False,
    )


def _config(**options: Any) -> AttentionConfig:
    try:
        return AttentionConfig.model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(explain(error, AttentionConfig)) from error


def _from_timm(name: str, weights: str | None, seed: int) -> tuple[Subject, dict[str, Any]]:
    import timm
    from timm.data import resolve_data_config

    if not timm.is_model(name):
        raise ConfigurationError(f"timm has no model {name!r}: `timm.list_models('vit*')` lists some")
    overlay = None if weights in (None, "none") else {"file": str(weights)}
    if overlay and not Path(overlay["file"]).is_file():
        raise WeightsError(f"no such file of weights: {weights}")
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
        raise WeightsError(
            f"cannot get the weights of {name} ({reason}); give a local file with --weights FILE, "
            f"or measure it untrained with --weights none"
        ) from error
    return Subject(name, network, untrained), resolve_data_config({}, model=network)


def _pictures(folder: Path, settings: dict[str, Any], config: AttentionConfig) -> Gallery:
    paths = evenly_spaced(find_pictures(folder), config.cases)
    size = (int(settings["input_size"][1]), int(settings["input_size"][2]))

    def read(path: Path) -> np.ndarray:
        return read_picture(path, size, settings["mean"], settings["std"])

    def images(stage: Stage) -> Iterator[CaseImages]:
        for path in paths:
            yield path.stem, torch.from_numpy(read(path)[None]), None
            stage.advance(note=path.name)

    return Gallery([path.stem for path in paths], images, ExampleSlice(paths[0].stem, 0, read(paths[0])))


def _volumes(
    checkpoint: Path, network: Network | Adapted, folder: Path, study: DataConfig | None, config: AttentionConfig
) -> Gallery:
    """Cases of a data set, prepared as the checkpoint's study prepared them unless `study` says otherwise."""
    provenance = read_provenance(checkpoint)
    data, case_set = cases_for(checkpoint, network, provenance, folder, study)
    split = with_split(provenance, case_set).split or Split((), ())
    known = [case for case in case_set.ids if case in split.train]
    held_out = {*split.validation, *split.tuning}
    cases = evenly_spaced(known or [case for case in case_set.ids if case not in held_out], config.cases)
    if not cases:
        raise DataError(
            f"{folder} holds only validation and tuning cases of {checkpoint}; attention is measured on other cases"
        )
    preprocessing = Preprocessing.from_config(data)

    def images(stage: Stage) -> Iterator[CaseImages]:
        for case in cases:
            prepared = preprocessing.apply(load_volume(case_set.case(case), case_set))
            chosen = evenly_spaced(range(len(prepared.images)), config.slices)
            yield case, torch.from_numpy(prepared.images[chosen]), prepared.pixel_spacing
            stage.advance(note=case)

    first = preprocessing.apply(load_volume(case_set.case(cases[0]), case_set))
    middle = len(first.images) // 2
    return Gallery(cases, images, ExampleSlice(cases[0], middle, first.images[middle]), data, case_set)


def _explorer_images(gallery: Gallery, count: int = 4) -> tuple[list[str], np.ndarray]:
    """The middle image of a few cases, (n, C, H, W), for the explorer."""
    names, images = [], []
    wanted = set(evenly_spaced(gallery.cases, count))
    for case, slices, _ in gallery.images(silent(len(gallery.cases))):
        if case in wanted:
            names.append(case)
            images.append(slices[len(slices) // 2].numpy())
    return names, np.stack(images)
