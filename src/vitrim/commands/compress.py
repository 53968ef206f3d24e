"""`vitrim compress`: a smaller network from a trained one, with what that costs and saves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vitrim.attention.analysis import ExampleSlice, analyse_network
from vitrim.attention.decision import Decision
from vitrim.commands.provenance import (
    IMPORT,
    RECOVERY,
    TRIAL,
    Provenance,
    cases_for,
    new_folder,
    prepared_data,
    read_provenance,
    with_split,
    write_recovery,
)
from vitrim.compression.candidates import ANALYSIS, CompressionRequest, CompressionRun
from vitrim.compression.depth_decision import DECISION, DepthDecision, DepthResult, confirm, read_depth, removed_scales
from vitrim.compression.depth_procedure import TRIES, chosen_depth, next_depth, segments_nothing
from vitrim.compression.depth_rules import (
    answers_of,
    by_exchange,
    changed_by_training,
    stored_evidence,
    untrained_answers,
)
from vitrim.compression.depth_search import DepthSearch, smallest_depth
from vitrim.compression.measure_exchange import measure_exchange
from vitrim.compression.summary import costs_of, summarise_compression, summary_lines
from vitrim.config.names import Criterion, DecoderForm, Device, Recovery
from vitrim.config.reading import Study, checked_name, data_section
from vitrim.config.schema import TrainConfig
from vitrim.data.recipe import RECIPE, recipe_for, stored_recipe
from vitrim.data.sampling import case_images, evenly_spaced, example_slice
from vitrim.data.split import Split, divide
from vitrim.errors import ConfigurationError, InputError, WeightsError
from vitrim.files import replacing, write_json, write_table, write_text
from vitrim.hardware import sharing_cores
from vitrim.metrics.statistics import VERDICT_CASES, change
from vitrim.models.adapt import Adapted
from vitrim.models.checkpoint import write_model
from vitrim.models.network import Network
from vitrim.models.opening import open_network, untrained_like
from vitrim.models.user_models import ModelSource
from vitrim.progress import Reporter
from vitrim.report.compression_page import compression_page
from vitrim.training.loop import history_table

MARGINS = (0.05, 0.01)
"""Non-inferiority margins of the procedure; the first one decides."""
COPIED = (RECIPE, TRIAL, IMPORT, RECOVERY)
"""Files beside a checkpoint that hold for its truncated form too: how its data were prepared and split."""


@dataclass(frozen=True)
class CompressionResult:
    """What `compress` made: the smaller network is in `folder`."""

    folder: Path
    depth: int
    summary: dict[str, Any]
    """What compression.json holds: parameters, multiply-adds, time and memory before and after, and how it was done."""
    lines: list[str]
    """The same in words."""


@sharing_cores()
def compress(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: ModelSource | None = None,
    depth: int | Literal["auto"] | None = None,
    decision: str | Path | None = None,
    data: str | Path | None = None,
    tolerance: float | None = None,
    recover: Recovery | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    blocks: Criterion = "first",
    decoder: DecoderForm | None = None,
    study: Study | None = None,
    seed: int = 0,
    device: Device = "auto",
    reporter: Reporter | None = None,
) -> CompressionResult:
    """Make a smaller network of a trained one, in the new folder `out`.

    The same as the command `vitrim compress`. With cases in `data` the depth can be decided, and the network trained
    on. By default it is decided by the procedure of docs/depth.md: what happens without exchange of tokens proposes a
    depth, tuning cases choose it, held-out cases confirm it. Tuning cases are those that the study kept for tuning, if
    `data` holds 8 of these; else 8 or more that the checkpoint has not seen; else a fifth of its training cases, which
    then take no part in recovery. Held-out cases of the checkpoint's study only confirm.

    Args:
        checkpoint: folder of a network; with `model` also a file with the state dict of a model of another library.
        model: what builds that model, before truncation: a function, or its place as `package.module:function` or
            `file.py:function`. Code of that place runs; the weights are read as data (docs/networks.md).
        depth: transformer blocks to keep, or `auto` to have the depth decided.
        decision: a decision.json that says how many, in place of `depth`.
        tolerance: with `auto`, decide by accuracy alone: the share of Dice that may be lost, 0.01 for 1 %.
        recover: train the small network on (`finetune`), with the full network as its teacher (`distil`), or not
            (`none`); by default `finetune` where the depth is decided, and `none` where it is given.
        device: where networks run; `auto` is a GPU if there is one.
        epochs: of recovery; by default as long as the checkpoint's own training.
        steps: optimiser steps of recovery, in place of `epochs`.
        blocks: the pruning criterion (`vitrim.choose_blocks`).
        decoder: form of the decoder, "paper" or "whole" (`vitrim.truncate`); by default that of the checkpoint.
        study: whose data section says how the data set is prepared; by default as the checkpoint's own study did.

    Raises:
        InputError: for anything that is wrong with these. `out` is written whole or not at all.

    Example:
        >>> import vitrim
        >>> result = vitrim.compress("transunet", "smaller", depth=1)
        >>> vitrim.load_model("smaller").depth
        1
    """
    request = _request(depth, decision, tolerance, recover, epochs, steps, blocks, decoder, seed, device)
    out, checkpoint, reporter = new_folder(out), Path(checkpoint), reporter or Reporter()
    section = data_section(study)
    network = open_network(checkpoint, model, section)
    provenance = read_provenance(checkpoint)
    if request.needs_data and data is None:
        raise InputError("deciding a depth or training on takes cases: give a data set with --data")
    if isinstance(network, Adapted) and request.decoder is not None:
        raise ConfigurationError(f"--decoder is for vitrim's own networks; {network.title} keeps its decoder")
    run = CompressionRun(network, request, reporter, _training(provenance, request), model)
    with ExitStack() as stack, replacing(out) as unfinished:
        unfinished.mkdir()
        if data is not None:
            config, cases = cases_for(checkpoint, network, provenance, Path(data), section)
            provenance = with_split(provenance, cases, study, draw=True)
            decides = request.depth is None and request.decision is None
            by_accuracy = decides or request.criterion == "effect"
            run.train, run.tuning = divide(cases, provenance.split, by_accuracy, request.seed, reporter)
            if decides and request.tolerance is None and provenance.split is not None:
                known = {case.id for case in cases.labelled}
                run.held_out = tuple(id for id in provenance.split.validation if id in known)
            ids = (*run.train, *run.tuning, *run.held_out)
            run.data = stack.enter_context(prepared_data(config, cases, ids, out, reporter))
        chosen, decided, search = _depth(run, checkpoint, unfinished)
        if isinstance(decided, DepthDecision):
            decided.save(unfinished / DECISION)
        small, choice, training = run.smaller(chosen)
        write_model(small, unfinished)
        for name in COPIED:
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, unfinished / name)
        if section is not None:
            stored = stored_recipe(checkpoint)
            recipe = recipe_for(checkpoint, stored, section, network.image_size, network.num_classes)
            write_json(unfinished / RECIPE, recipe.dump())
        if training is not None:
            write_table(unfinished / "recovery.csv", history_table(training))
            before = provenance.split or Split((), ())
            train = tuple(dict.fromkeys(id for id in (*before.train, *run.train) if id not in run.tuning))
            write_recovery(unfinished, Split(train, before.validation, run.tuning), run.training)
        images = run.example()
        before_cost, after_cost = costs_of([network, small], images, run.hardware)
        summary = summarise_compression(
            network,
            before_cost,
            after_cost,
            choice,
            request.recovery,
            training,
            decided,
            search,
        )
        write_json(unfinished / "compression.json", {"checkpoint": str(checkpoint), **summary})
        write_text(unfinished / "compression.md", compression_page(summary))
    return CompressionResult(out, small.depth, summary, [*summary_lines(summary), f"wrote {out}"])


def _request(
    depth: int | str | None,
    decision: str | Path | None,
    tolerance: float | None,
    recover: Recovery | None,
    epochs: int | None,
    steps: int | None,
    blocks: Criterion,
    decoder: DecoderForm | None,
    seed: int,
    device: Device,
) -> CompressionRequest:
    """The options as a request; ConfigurationError if they contradict each other."""
    if (depth is None) == (decision is None):
        raise ConfigurationError("give either --depth or --decision")
    if isinstance(depth, str) and depth != "auto":
        raise ConfigurationError(f"--depth is a number of blocks or auto, not {depth!r}")
    if tolerance is not None and depth != "auto":
        raise ConfigurationError("--tolerance decides the depth: give it with --depth auto")
    if tolerance is not None and not 0 < tolerance < 1:
        raise ConfigurationError(f"--tolerance {tolerance} is not a share of the Dice, such as 1% or 0.01")
    if epochs is not None and steps is not None:
        raise ConfigurationError("give either --epochs or --steps")
    if recover is None:
        recover = "finetune" if depth == "auto" else "none"
    checked_name(recover, Recovery, "--recover")
    checked_name(blocks, Criterion, "--blocks")
    if recover == "none" and (epochs or steps):
        raise ConfigurationError(
            "--epochs and --steps say how long to train on: give --recover finetune or distil with them"
        )
    return CompressionRequest(
        depth=depth if isinstance(depth, int) else None,
        decision=None if decision is None else Path(decision),
        tolerance=tolerance,
        criterion=blocks,
        decoder=None if decoder is None else checked_name(decoder, DecoderForm, "--decoder"),
        recovery=recover,
        epochs=epochs,
        steps=steps,
        seed=seed,
        device=checked_name(device, Device, "device"),
    )


def _training(provenance: Provenance, request: CompressionRequest) -> TrainConfig | None:
    # the full network may come from a larger machine; a recovery keeps no cases aside to find the best step
    here = {"device": request.device, "devices": 1, "nodes": 1, "checkpoint": "last"}
    if request.recovery != "none" and not (request.epochs is None and request.steps is None):
        base = provenance.training or TrainConfig(steps=1)
        return base.model_copy(update={"epochs": request.epochs, "steps": request.steps, **here})
    if provenance.training is not None:
        return provenance.training.model_copy(update=here)
    if request.recovery == "none":
        return None
    raise InputError("it is not known how this network was trained: say how long to train on, with --epochs or --steps")


def _depth(
    run: CompressionRun, checkpoint: Path, folder: Path
) -> tuple[int, Decision | DepthDecision | None, DepthSearch | None]:
    """The number of blocks to keep, and how it was decided."""
    request, network = run.request, run.network
    if request.decision is not None:
        depth, full = read_depth(request.decision)
        if full != network.depth:
            raise WeightsError(
                f"{request.decision} decides on a network of {full} blocks, {checkpoint} has {network.depth}"
            )
        return depth, None, None
    if request.depth is not None:
        return request.depth, None, None
    rule = _look(run, folder / "attention")
    if request.tolerance is None:
        decided = _by_procedure(run, rule, folder / "attention")
        return decided.depth, decided, None
    full_cases = run.cases(network, f"the full network, {network.depth} blocks")
    search = smallest_depth(
        full_cases,
        lambda depth: run.cases(run.smaller(depth)[0], f"{depth} blocks"),
        network.shallowest,
        network.depth,
        request.tolerance,
    )
    return search.depth, rule, search


def _look(run: CompressionRun, folder: Path) -> Decision:
    """Measure the attention of the network, and let the attention rule decide."""
    assert run.data is not None
    cache, seed = run.data.cache, run.request.seed
    cases = evenly_spaced(run.train, ANALYSIS.cases)
    untrained = untrained_like(run.network, run.model, seed)
    with run.reporter.stage("attention", 2 * len(cases)) as stage:
        return analyse_network(
            run.network,
            untrained,
            lambda: case_images(cases, cache, ANALYSIS.slices, stage),
            ExampleSlice(cases[0], *example_slice(cases[0], cache)),
            folder,
            ANALYSIS,
            seed,
            run.hardware,
        )


def _by_procedure(run: CompressionRun, rule: Decision, folder: Path) -> DepthDecision:
    """Propose a depth by the exchange curve, choose it on tuning cases, confirm it on held-out cases."""
    assert run.data is not None
    network, full, margin = run.network, run.network.depth, MARGINS[0]
    with run.reporter.stage("exchange of tokens", 2 * len(run.tuning)) as stage:
        curve = measure_exchange(network, full, run.data, run.tuning, run.hardware, stage, forms=("identity",))
    curve.save(folder)
    evidence = stored_evidence(folder, margin)
    assert evidence is not None
    cutoff = by_exchange(evidence)
    proposed = full if cutoff is None else max(cutoff, network.shallowest)
    whole = run.cases(network, f"the full network, {full} blocks")
    tables = {full: whole}
    results: dict[int, DepthResult] = {}
    reason = segments_nothing(whole, "tuning cases")
    while not reason and (depth := _next(results, proposed, network.shallowest, full)) is not None:
        tables[depth] = run.cases(run.smaller(depth)[0], f"{depth} blocks")
        results[depth] = DepthResult.of(depth, change(whole, tables[depth]), MARGINS)
    decision = DepthDecision(
        network=network.title,
        full=full,
        depth=full,
        verdict="not shown",
        margin=margin,
        proposed=proposed,
        rule="exchange",
        proposed_on="tuning",
        rules=dict(answers_of(replace(evidence, tables=tables))),
        untrained=untrained_answers(rule),
        changed_by_training=changed_by_training(rule),
        trained_on=run.request.recovery != "none",
        also_removed=_also_removed(network, run.request.decoder),
        exchange_percent=curve.without_any,
        tried=tuple(results[depth] for depth in sorted(results, reverse=True)),
        order=tuple(results),
        reason=reason,
    )
    chosen = chosen_depth({depth: result.verdict(margin) for depth, result in results.items()}, full)
    if reason or chosen == full:
        return decision
    if len(run.held_out) < VERDICT_CASES:
        return confirm(decision.model_copy(update={"judged_on": "tuning"}), tables, chosen, MARGINS, network.shallowest)
    wanted = {full, chosen, max((depth for depth in results if depth < chosen), default=chosen)}
    networks = {depth: network if depth == full else run.smaller(depth)[0] for depth in wanted}
    what = "{} blocks on held-out cases"
    held_out = {depth: run.cases(each, what.format(depth), run.held_out) for depth, each in networks.items()}
    return confirm(decision, held_out, chosen, MARGINS, network.shallowest)


def _next(results: Mapping[int, DepthResult], proposed: int, shallowest: int, full: int) -> int | None:
    verdicts = {depth: result.verdict(MARGINS[0]) for depth, result in results.items()}
    return next_depth(verdicts, proposed, shallowest, full, TRIES - len(results))


def _also_removed(network: Network | Adapted, decoder: DecoderForm | None) -> str:
    if isinstance(network, Adapted):  # its decoder stays
        return ""
    return removed_scales(type(network), decoder or network.config.decoder)
