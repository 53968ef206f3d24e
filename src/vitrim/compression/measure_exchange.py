"""Measures the exchange curve of a network: it runs once for each change of its attention, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from vitrim.attention.mean_maps import mean_maps
from vitrim.attention.replay import Intervention, run_interventions
from vitrim.compression.exchange_curve import FORMS, ExchangeCurve, Where, holds
from vitrim.config.names import ExchangeForm
from vitrim.data.cache import PreparedData
from vitrim.errors import DataError
from vitrim.evaluation.segment import BATCH, labels_of
from vitrim.hardware import Hardware
from vitrim.metrics.segmentation import class_dice
from vitrim.metrics.statistics import change_percent
from vitrim.models.adapt import Adapted
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.progress import Stage


def measure_exchange(
    network: Network | Adapted,
    blocks: int,
    data: PreparedData,
    ids: Sequence[str],
    hardware: Hardware,
    stage: Stage | None = None,
    forms: Sequence[ExchangeForm] = FORMS,
    untrained: Network | Adapted | None = None,
) -> ExchangeCurve:
    """Measure the exchange curve of a network of `blocks` blocks on the cases `ids`, in 3D on the original grid.

    Each batch runs once untouched and once for each change: the `forms` after every block and, if there are more than
    `identity`, every block alone; what lies before the first changed block is computed once.
    Cases without a label are compared with the labels of the untouched network (agreement); then no case is compared
    with its label. `untrained`: the network before training; its content dependence is measured too. The stage
    advances for each case once per network for the mean maps, and once for the changes.

    Raises:
        DataError: if there are no cases.
        InputError: as `vitrim.without_exchange`.
    """
    if not ids:
        raise DataError("the exchange curve needs cases, and there are none")
    agreement = any(data.cache.case(id).reference is None for id in ids)
    device = torch.device(hardware.torch_device)
    forms = [form for form in FORMS if form == "identity" or form in forms]
    alone = len(forms) > 1
    network = fold_for_inference(network)
    with hardware.running(network):
        means = mean_maps(network, _batches(data, ids, device, stage))
        variants: list[tuple[str, Where, int]] = [("none", "after", blocks)]
        variants += [(form, "after", k) for form in forms for k in range(blocks)]
        if alone:
            variants += [("identity", "alone", block) for block in range(1, blocks)]
        changes = [_intervention(form, where, k, blocks, means.maps) for form, where, k in variants[1:]]
        rows: list[dict[str, Any]] = []
        for id in ids:
            rows += _case_rows(network, data, id, device, variants, changes, agreement)
            if stage:
                stage.advance(note=id)
    before: tuple[np.ndarray, ...] = ()
    if untrained is not None:
        untrained = fold_for_inference(untrained)
        with hardware.running(untrained):
            before = mean_maps(untrained, _batches(data, ids, device, stage)).content
    table = pd.DataFrame(rows)
    if alone:  # the last block alone is the same as all after the one before it
        last = table[(table["form"] == "identity") & (table["where"] == "after") & (table["block"] == blocks - 1)]
        table = pd.concat([table, last.assign(where="alone", block=blocks)], ignore_index=True)
    return ExchangeCurve(table.assign(against="agreement" if agreement else "labels"), means.content, before)


def find_exchanging_blocks(
    network: Network | Adapted,
    curve: ExchangeCurve,
    data: PreparedData,
    ids: Sequence[str],
    hardware: Hardware,
    margin: float,
    stage: Stage | None = None,
) -> ExchangeCurve:
    """Return `curve` with the rows from which `ExchangeCurve.exchanging` reads the blocks whose exchange Dice needs.

    Exchange is off after the cut-off. Then it is switched off in one more block after the other, first where it alone
    loses least; a block stays off if Dice is not worse by `margin`. `ids` are the cases of the curve. The stage
    advances once for each case and block up to the cut-off.
    """
    end = curve.cutoff(margin) or 0
    full, alone = curve.untouched, curve.tables("identity", "alone")
    order = sorted(range(1, end + 1), key=lambda block: -change_percent(full, alone[block]))
    off = set(range(end + 1, curve.blocks + 1))
    device = torch.device(hardware.torch_device)
    tables = [curve.table]
    network = fold_for_inference(network)
    with hardware.running(network):
        for block in order:
            variants: list[tuple[str, Where, int]] = [("none", "after", curve.blocks), ("identity", "too", block)]
            changes = [Intervention(tuple(sorted({*off, block})))]
            rows: list[dict[str, Any]] = []
            for id in ids:
                rows += _case_rows(network, data, id, device, variants, changes, curve.agreement)
                if stage:
                    stage.advance(note=id)
            table = pd.DataFrame(rows)
            table = table[table["where"] == "too"].assign(against=curve.table["against"].iloc[0])
            tables.append(table)
            if holds(full, table, margin):
                off.add(block)
    return replace(curve, table=pd.concat(tables, ignore_index=True))


def _intervention(form: Any, where: Where, block: int, blocks: int, maps: dict[int, torch.Tensor]) -> Intervention:
    changed = (block,) if where == "alone" else tuple(range(block + 1, blocks + 1))
    return Intervention(changed, form, maps if form == "constant" else None)


def _case_rows(
    network: nn.Module,
    data: PreparedData,
    id: str,
    device: torch.device,
    variants: Sequence[tuple[str, Where, int]],
    changes: Sequence[Intervention],
    agreement: bool,
) -> list[dict[str, Any]]:
    prepared = data.cache.case(id)
    labels: list[list[np.ndarray]] = [[] for _ in variants]
    for batch in _slices(prepared.images, device):
        outputs = run_interventions(network, lambda batch=batch: network(batch), batch, changes)  # type: ignore[misc]
        for place, logits in enumerate(outputs):
            if not torch.isfinite(logits).all():
                raise DataError(f"case {id}: the network's logits are not finite; check its weights and the images")
            labels[place].append(labels_of(logits).cpu().numpy())
    predictions = [data.preprocessing.restore(np.concatenate(parts), prepared.record) for parts in labels]
    reference = predictions[0] if agreement or prepared.reference is None else prepared.reference
    rows = []
    for (form, where, block), prediction in zip(variants, predictions, strict=True):
        for row in class_dice(prediction, reference, data.cases.classes, data.cases.regions):
            rows.append({"form": form, "where": where, "block": block, "case": id, **row})
    return rows


def _batches(
    data: PreparedData, ids: Sequence[str], device: torch.device, stage: Stage | None
) -> Iterable[torch.Tensor]:
    for id in ids:
        yield from _slices(data.cache.case(id).images, device)
        if stage:
            stage.advance(note=id)


def _slices(images: np.ndarray, device: torch.device) -> Iterable[torch.Tensor]:
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH], dtype=np.float32))
        yield batch.to(device).contiguous(memory_format=torch.channels_last)
