"""The answer for each network: what is recommended, how far it is shown, what it costs and saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from vitrim.compression.depth_decision import DepthDecision, DepthResult
from vitrim.report.formatting import listing, plural, signed
from vitrim.report.run import NetworkRun, Run
from vitrim.report.sentences import costs, fewer_blocks, no_decision, recommendation, saves


@dataclass(frozen=True)
class Answer:
    """The answer for one network in words.

    `saves`, `costs` and `fewer` are sentences (empty if unknown). `notes` say what the verdict rests on.
    """

    network: NetworkRun
    recommended: str
    """What to do: "Keep 3 of 12 blocks"."""
    verdict: str
    """How far it is shown: needs, enough, nothing or not shown."""
    provisional: bool
    claim: str
    """The verdict as a sentence."""
    depth: int | None
    """Number of blocks to keep."""
    full: int
    saves: str
    costs: str
    fewer: str
    """What fewer blocks cost."""
    result: DepthResult | None
    """The change in Dice that the verdict is about; for "not shown", that of the smallest depth tried."""
    notes: tuple[str, ...]

    @property
    def loss(self) -> str:
        """Say that Dice is lower, and with how many blocks; empty unless the whole interval lies below 0."""
        if self.result is None or self.result.high is None or self.result.high >= 0:
            return ""
        return f"Dice is lower with {plural(self.result.depth, 'block')}"


def answers(run: Run) -> list[Answer]:
    """Return one answer per network, from its decision and the result rows of the first seed."""
    return [_answer(run, network) for network in run.networks]


def shared_notes(found: Sequence[Answer]) -> list[str]:
    """Return the notes on all answers, each once. A note that not all networks share begins with their names."""
    lines = []
    if note := _attention_note(found):
        lines.append(note)
    texts = dict.fromkeys(note for answer in found for note in answer.notes)
    for text in texts:
        titles = [answer.network.title for answer in found if text in answer.notes]
        lines.append(text if len(titles) == len(found) else f"{listing(titles)}: {text}")
    return lines


def _attention_note(found: Sequence[Answer]) -> str:
    """Say in which networks attention does not decide, and why; empty if it tells something in all of them."""
    all_decisions = [(one.network.title, one.network.decision) for one in found]
    silent = [(title, decision) for title, decision in all_decisions if decision and decision.attention_note()]
    if len(silent) < 2:
        return "".join(f"{title}: {decision.attention_note()}" for title, decision in silent)
    text = f"Attention does not decide in {listing([title for title, _ in silent])}"
    before = [decision.untrained.get("globality") for _, decision in silent]
    if None not in before:
        text += f": before any training the rule globality says {listing(_distinct(before))} as well"
    changes = [decision.exchange_percent for _, decision in silent]
    if None not in changes:
        percents = listing([f"{signed(change, 1)} %" for change in changes])
        text += f". With exchange between patches switched off, without training again, Dice changes by {percents}"
    return f"{text}."


def _distinct(values: Sequence[object]) -> list[str]:
    """Return the values as text: once if all are equal."""
    texts = [str(value) for value in values]
    return texts[:1] if len(set(texts)) == 1 else texts


def _answer(run: Run, network: NetworkRun) -> Answer:
    full_blocks, seed = run.full_blocks(network.name), run.seeds[0]
    decided = network.decision
    if decided is None:
        return Answer(
            network, recommendation(None, full_blocks), "not shown", False, no_decision(network), None, full_blocks,
            "", "", "", None, (),
        )  # fmt: skip
    full, row = run.row(network.name, full_blocks, seed), run.row(network.name, decided.depth, seed)
    saving = price = ""
    if full is not None and row is not None and decided.depth < full_blocks:
        judged = decided.confirmed
        if judged is not None and judged.depth == decided.depth:  # the table's verdicts are those of a sequence
            row = pd.concat([row, pd.Series({f"verdict_{m}": v for m, v in judged.verdicts.items()})])
            row = row[~row.index.duplicated(keep="last")]
        saving, price = saves(row, full), costs(row, full, run.margins)
    judged_here = decided.judged and not decided.set_by_hand
    return Answer(
        network=network,
        recommended=recommendation(decided, full_blocks),
        verdict=decided.verdict if judged_here else "not shown",
        provisional=judged_here and decided.verdict != "not shown" and decided.provisional,
        claim=f"{decided.claim()}.",
        depth=decided.depth,
        full=full_blocks,
        saves=saving,
        costs=price,
        fewer=fewer_blocks(decided),
        result=_result(decided),
        notes=tuple(decided.evidence_notes()),
    )


def _result(decided: DepthDecision) -> DepthResult | None:
    """Return the result that a card shows; none for a depth set by hand, which was not judged."""
    if decided.set_by_hand or not decided.judged or decided.reason:
        return None
    return decided.smallest_tried if decided.verdict == "not shown" else decided.confirmed
