"""The exchange curve: what Dice loses if tokens exchange nothing after a block, and what attention does in each block.

docs/depth.md says what follows from it and what does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from vitrim.attention.mean_maps import mean_maps
from vitrim.attention.replay import Intervention, run_interventions
from vitrim.config.names import ExchangeForm
from vitrim.data.cache import PreparedData
from vitrim.errors import DataError
from vitrim.evaluation.segment import BATCH
from vitrim.files import read_table, write_table
from vitrim.hardware import Hardware
from vitrim.metrics.segmentation import class_dice
from vitrim.metrics.statistics import VERDICT_CASES, Change, change, network_dice
from vitrim.progress import Stage

EXCHANGE, CONTENT = "exchange.csv", "content.csv"
FORMS: tuple[ExchangeForm, ...] = ("identity", "constant", "uniform")
Where = Literal["after", "alone", "too"]
"""Which blocks are changed: all after a block; one alone; or one more, in addition to all that can do without."""


@dataclass(frozen=True)
class ExchangeCurve:
    """Dice per case of a trained network with its attention changed.

    `table` has the columns form (none: the untouched network), where (after, alone, too), block, case, class, dice,
    reference_voxels, predicted_voxels, against (labels; or agreement: the labels of the untouched network) and, where
    several curves were joined, seed. `after` block k: the blocks k + 1 to L are changed; `alone`: the block itself;
    `too`: the block, those after the cut-off, and those of earlier rows that Dice can do without
    (`find_exchanging_blocks`).
    """

    table: pd.DataFrame
    content: tuple[np.ndarray, ...] = ()
    """Content dependence of the heads of each block, (heads,) each (`vitrim.attention.mean_maps`); empty if unknown."""
    untrained_content: tuple[np.ndarray, ...] = ()
    """The same for the network before training; empty if unknown."""

    @property
    def agreement(self) -> bool:
        """Whether the labels of the untouched network took the place of a reference."""
        return bool((self.table["against"] == "agreement").any())

    @property
    def blocks(self) -> int:
        """Number of blocks of the network, L."""
        return int(self.table["block"].max())

    @property
    def cases(self) -> int:
        """Number of cases."""
        return int(self.table["case"].nunique())

    @property
    def untouched_dice(self) -> float:
        """Average Dice of the untouched network."""
        return network_dice(self._rows("none", "after", self.blocks))

    @property
    def without_any(self) -> float | None:
        """Change in Dice in percent without any exchange; None if the untouched network has a Dice of 0."""
        percent = self.changes()[0].percent
        return percent if np.isfinite(percent) else None

    def changes(self, form: ExchangeForm = "identity", where: Where = "after") -> dict[int, Change]:
        """Return the paired change in Dice by block, for `after` from 0 to L − 1, for `alone` from 1 to L."""
        full = self._rows("none", "after", self.blocks)
        own = self.table[(self.table["form"] == form) & (self.table["where"] == where)]
        return {int(str(block)): change(full, rows) for block, rows in own.groupby("block")}

    def cutoff(self, margin: float, form: ExchangeForm = "identity") -> int | None:
        """Return the exchange cut-off: the smallest k from which on Dice is not worse by `margin` for all larger k too.

        The depths are a fixed sequence of tests from deep to shallow. With fewer than 8 cases the point estimates
        decide. None if this form was not measured.
        """
        found = self.changes(form)
        if not found:
            return None
        return lasting_depth(found, self.blocks, margin, few=self.cases < VERDICT_CASES)

    def roles(self, margin: float) -> list[str]:
        """Say of each block what its attention does: "nothing", "pools", "fixed places" or "content".

        From the cut-offs of the three forms: after the one of `identity` blocks exchange nothing that Dice needs; up to
        there, after the one of `uniform` they only pool; after the one of `constant` they look at fixed places; the
        others look by content. If a form was not measured, they "exchange": more is not known.
        """
        ends = {form: self.cutoff(margin, form) for form in FORMS}
        known = all(end is not None for end in ends.values())
        names = []
        for block in range(1, self.blocks + 1):
            role = "content" if known else "exchange"
            for form, name in (("identity", "nothing"), ("uniform", "pools"), ("constant", "fixed places")):
                end = ends[form]  # type: ignore[index]
                if end is not None and block > end:
                    role = name
                    break
            names.append(role)
        return names

    def exchanging(self, margin: float) -> tuple[int, ...] | None:
        """Return a smallest set of blocks whose exchange Dice needs; None if it was not looked for.

        Exchange can be off in all other blocks at once. The set was found greedily, so another one may be as small.
        """
        end = self.cutoff(margin)
        kept = set(range(1, (end or 0) + 1))
        tried = self.table[self.table["where"] == "too"]
        if end is None or (tried.empty and end > 0):
            return None
        full = self._rows("none", "after", self.blocks)
        for block, rows in tried.groupby("block", sort=False):
            if _holds(change(full, rows), margin, few=self.cases < VERDICT_CASES):
                kept.discard(int(str(block)))
        return tuple(sorted(kept))

    def sentence(self, margin: float) -> str:
        """Return what Dice loses without any exchange, and the cut-off, as text."""
        none = self.changes()[0]
        if self.without_any is None:
            return "The untouched network segments nothing (Dice 0), so a change in Dice has no meaning."
        interval = "" if none.low is None or none.high is None else f" ({none.low:+.1f} to {none.high:+.1f})"
        what = "the agreement with the untouched network's labels" if self.agreement else "Dice"
        return (
            f"Without any exchange between patches {what} changes by {none.percent:+.1f} %{interval} on {self.cases} "
            f"cases. From block {self.cutoff(margin)} on, blocks can do without it (exchange cut-off, margin "
            f"{100 * margin:g} %)."
        )

    def save(self, folder: Path) -> None:
        """Write exchange.csv and, if it is known, content.csv into `folder`.

        content.csv has the columns block, head, content_dependence and, if it is known, untrained (the content
        dependence before training).
        """
        write_table(folder / EXCHANGE, self.table)
        if not self.content:
            return
        rows = [
            {"block": block, "head": head, "content_dependence": float(value)}
            for block, heads in enumerate(self.content, start=1)
            for head, value in enumerate(heads, start=1)
        ]
        table = pd.DataFrame(rows)
        if self.untrained_content:
            table["untrained"] = np.concatenate(self.untrained_content)
        write_table(folder / CONTENT, table)

    @classmethod
    def load(cls, folder: Path) -> ExchangeCurve | None:
        """Read exchange.csv and content.csv in `folder`; None if there is no exchange.csv.

        Raises InputError if a file is damaged.
        """
        if not (folder / EXCHANGE).is_file():
            return None
        content = read_table(folder / CONTENT) if (folder / CONTENT).is_file() else pd.DataFrame({"block": []})
        trained, untrained = (
            tuple(heads[name].to_numpy(float) for _, heads in content.groupby("block")) if name in content else ()
            for name in ("content_dependence", "untrained")
        )
        return cls(read_table(folder / EXCHANGE), trained, untrained)

    @classmethod
    def joined(cls, curves: Sequence[tuple[int, int, ExchangeCurve]]) -> ExchangeCurve:
        """Join the curves of several trainings, given as (seed, fold, curve).

        A case that several folds measured counts once, with its mean over these folds.
        """
        table = pd.concat([curve.table.assign(seed=seed) for seed, _, curve in curves], ignore_index=True)
        table = table[table["where"] != "too"]  # each training has its own set
        if len({fold for _, fold, _ in curves}) > 1:
            keys = ["form", "where", "block", "seed", "case", "class", "against"]
            table = table.groupby(keys, sort=False, as_index=False).mean(numeric_only=True)
        return cls(table)

    def _rows(self, form: str, where: str, block: int) -> pd.DataFrame:
        table = self.table
        return table[(table["form"] == form) & (table["where"] == where) & (table["block"] == block)]


def lasting_depth(changes: Mapping[int, Change], full: int, margin: float, *, few: bool) -> int:
    """Return the smallest depth from which on all larger ones are "not worse" too; `full` if there is none.

    With `few` cases there is no verdict, and the point estimates decide.
    """
    end = full
    for depth, difference in sorted(changes.items(), reverse=True):
        if not _holds(difference, margin, few):
            break
        end = depth
    return end


def _holds(difference: Change, margin: float, few: bool) -> bool:
    """Whether Dice is not worse by `margin`; with `few` cases, whether its point estimate is not."""
    return difference.percent > -100 * margin if few else difference.verdict(margin) == "not worse"


def measure_exchange(
    network: nn.Module,
    blocks: int,
    data: PreparedData,
    ids: Sequence[str],
    hardware: Hardware,
    stage: Stage | None = None,
    forms: Sequence[ExchangeForm] = FORMS,
    untrained: nn.Module | None = None,
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
        with hardware.running(untrained):
            before = mean_maps(untrained, _batches(data, ids, device, stage)).content
    table = pd.DataFrame(rows)
    if alone:  # the last block alone is the same as all after the one before it
        last = table[(table["form"] == "identity") & (table["where"] == "after") & (table["block"] == blocks - 1)]
        table = pd.concat([table, last.assign(where="alone", block=blocks)], ignore_index=True)
    return ExchangeCurve(table.assign(against="agreement" if agreement else "labels"), means.content, before)


def find_exchanging_blocks(
    network: nn.Module,
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
    losses = curve.changes("identity", "alone")
    order = sorted(range(1, end + 1), key=lambda block: -losses[block].percent)
    off = set(range(end + 1, curve.blocks + 1))
    full = curve._rows("none", "after", curve.blocks)
    device = torch.device(hardware.torch_device)
    tables = [curve.table]
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
            if _holds(change(full, table), margin, few=curve.cases < VERDICT_CASES):
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
            labels[place].append(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())
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
