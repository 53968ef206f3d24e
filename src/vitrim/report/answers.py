"""The answer for each network: verdict on the depth, savings, and change in Dice."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from vitrim.report.run import NetworkRun, Run
from vitrim.report.sentences import costs, explain_flags, no_decision, saves


@dataclass(frozen=True)
class Answer:
    """The answer for one network in words.

    `headline` is the verdict. `saves` and `costs` are sentences (empty if unknown). `notes` say what the verdict rests
    on, and explain the flags of the attention rule. `depth` is the number of blocks to keep, `full` that of the full
    network.
    """

    network: NetworkRun
    headline: str
    depth: int | None
    full: int
    saves: str
    costs: str
    notes: tuple[str, ...]


def answers(run: Run) -> list[Answer]:
    """Return one answer per network, from its decision and the result rows of the first seed."""
    return [_answer(run, network) for network in run.networks]


def _answer(run: Run, network: NetworkRun) -> Answer:
    full_blocks, seed = run.full_blocks(network.name), run.seeds[0]
    decided = network.decision
    flags = tuple(explain_flags(network, network.rule)) if network.rule is not None else ()
    if decided is None:
        return Answer(network, no_decision(network), None, full_blocks, "", "", flags)
    full, row = run.row(network.name, full_blocks, seed), run.row(network.name, decided.depth, seed)
    saving = price = ""
    if full is not None and row is not None and decided.depth < full_blocks:
        judged = decided.confirmed
        if judged is not None and judged.depth == decided.depth:  # the table's verdicts are those of a sequence
            row = pd.concat([row, pd.Series({f"verdict_{m}": v for m, v in judged.verdicts.items()})])
            row = row[~row.index.duplicated(keep="last")]
        saving, price = saves(row, full), costs(row, full, run.margins)
    notes = (*decided.notes(), *flags)
    return Answer(network, decided.headline(), decided.depth, full_blocks, saving, price, notes)
