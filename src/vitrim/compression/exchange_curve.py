"""The exchange curve: what Dice loses if tokens exchange nothing after a block, and what attention does in each block.

docs/depth.md says what follows from it and what does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from vitrim.config.names import ExchangeForm
from vitrim.files import read_table, write_table
from vitrim.metrics.statistics import VERDICT_CASES, Change, change, change_percent, signed

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
    def without_any(self) -> float | None:
        """Change in Dice in percent without any exchange; None if the untouched network has a Dice of 0."""
        percent = change_percent(self.untouched, self.tables()[0])
        return percent if np.isfinite(percent) else None

    def changes(self, form: ExchangeForm = "identity", where: Where = "after") -> dict[int, Change]:
        """Return the paired change in Dice by block, for `after` from 0 to L − 1, for `alone` from 1 to L."""
        return {block: change(self.untouched, rows) for block, rows in self.tables(form, where).items()}

    def cutoff(self, margin: float, form: ExchangeForm = "identity") -> int | None:
        """Return the exchange cut-off: the smallest k from which on Dice is not worse by `margin` for all larger k too.

        The depths are a fixed sequence of tests from deep to shallow. With fewer than 8 cases the point estimates
        decide. None if this form was not measured.
        """
        tables = self.tables(form)
        return lasting_depth({**tables, self.blocks: self.untouched}, margin) if tables else None

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
        for block, rows in tried.groupby("block", sort=False):
            if holds(self.untouched, rows, margin):
                kept.discard(int(str(block)))
        return tuple(sorted(kept))

    def sentence(self, margin: float) -> str:
        """Return what Dice loses without any exchange, and the cut-off, as text."""
        none = change(self.untouched, self.tables()[0])
        if self.without_any is None:
            return "The untouched network segments nothing (Dice 0), so a change in Dice has no meaning."
        interval = "" if none.low is None or none.high is None else f" ({signed(none.low)} to {signed(none.high)})"
        what = "the agreement with the untouched network's labels" if self.agreement else "Dice"
        return (
            f"Without any exchange between patches {what} changes by {signed(none.percent)} %{interval} on "
            f"{self.cases} cases. From block {self.cutoff(margin)} on, blocks can do without it (exchange cut-off, "
            f"margin {100 * margin:g} %)."
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

    @property
    def untouched(self) -> pd.DataFrame:
        """The rows of the untouched network."""
        return self.tables("none")[self.blocks]

    def tables(self, form: str = "identity", where: Where = "after") -> dict[int, pd.DataFrame]:
        """Return the rows of each block."""
        own = self.table[(self.table["form"] == form) & (self.table["where"] == where)]
        return {int(str(block)): rows for block, rows in own.groupby("block")}


def lasting_depth(tables: Mapping[int, pd.DataFrame], margin: float) -> int:
    """Return the smallest depth from which on all larger ones are "not worse" than the deepest, which is the full one.

    `tables` holds a per-case table by depth. With fewer than 8 cases there is no verdict, and the point estimates
    decide.
    """
    end, *depths = sorted(tables, reverse=True)
    full = tables[end]
    for depth in depths:
        if not holds(full, tables[depth], margin):
            break
        end = depth
    return end


def holds(full: pd.DataFrame, changed: pd.DataFrame, margin: float) -> bool:
    """Whether Dice is not worse by `margin`; with few cases, whether its point estimate is not."""
    if full["case"].nunique() < VERDICT_CASES:
        return change_percent(full, changed) > -100 * margin
    return change(full, changed).verdict(margin) == "not worse"
