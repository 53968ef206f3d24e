"""The answer for each network: blocks needed, savings, and change in Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitrim.attention.decision import Decision
from vitrim.report.run import NetworkRun, Run
from vitrim.report.sentences import costs, explain_flags, needs, other_seeds, saves


@dataclass(frozen=True)
class Answer:
    """The answer for one network in words.

    `needs`, `saves` and `costs` are sentences (empty if unknown); `notes` are the decision's flags in words. `full`
    is the number of blocks of the full network.
    """

    network: NetworkRun
    decision: Decision | None
    full: int
    needs: str
    saves: str
    costs: str
    notes: tuple[str, ...]


def answers(run: Run) -> list[Answer]:
    """Return one answer per network, from its decision and the result rows of the first seed."""
    return [_answer(run, network) for network in run.networks]


def _answer(run: Run, network: NetworkRun) -> Answer:
    full_blocks, seed = run.full_blocks(network.name), run.seeds[0]
    decided = network.decision
    if decided is None:
        return Answer(network, None, full_blocks, f"No decision is stored for {network.title}.", "", "", ())
    full, row = run.row(network.name, full_blocks, seed), run.row(network.name, decided.depth, seed)
    saving = price = ""
    if full is not None and row is not None and decided.depth < full_blocks:
        before, after = _cost(run, network.name, full_blocks, seed), _cost(run, network.name, decided.depth, seed)
        saving, price = saves(row, full, after, before), costs(row, full, run.margins)
        price += other_seeds(run, network.name, decided.depth)
    elif decided.depth >= full_blocks:
        saving = "Nothing is saved."
    return Answer(
        network, decided, full_blocks, needs(network, decided, full_blocks), saving, price,
        tuple(explain_flags(network, decided)),
    )  # fmt: skip


def _cost(run: Run, network: str, blocks: int, seed: int) -> dict[str, Any]:
    if run.cost is None:
        return {}
    rows = run.cost[(run.cost["network"] == network) & (run.cost["blocks"] == blocks) & (run.cost["seed"] == seed)]
    return {} if rows.empty else rows.iloc[0].to_dict()
