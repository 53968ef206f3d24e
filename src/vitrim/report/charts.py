"""The charts of one network: attention measures by block with the decision, Dice by depth, training loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from vitrim.attention.decision import Decision
from vitrim.attention.measures import MEASURES, Measure
from vitrim.report.curves import Curve, available, curve
from vitrim.report.formatting import capitalised, fixed, is_number, plural, signed
from vitrim.report.run import NetworkRun, Run
from vitrim.report.svg import Line, chart, framed, level, nice_range, shade


@dataclass(frozen=True)
class Figure:
    """A chart with its heading; `reads` explains how to read it."""

    key: str
    title: str
    reads: str
    svg: Markup


def measure_figures(network: NetworkRun) -> list[Figure]:
    """Return one chart per measure in the profile. The deciding measure comes first and shows the threshold.

    Without the attention distance (`distance_figure`), unless it decides.
    """
    if network.profile is None:
        return []
    deciding_measure = network.rule.measure if network.rule is not None else ""
    measures = [one for one in available(network.profile) if not one.is_distance or one.name == deciding_measure]
    if network.rule is not None:
        measures.sort(key=lambda measure: measure.name != deciding_measure)
    return [figure for measure in measures if (figure := _measure_figure(network, measure)) is not None]


def distance_figure(network: NetworkRun) -> Figure | None:
    """Return the chart of the attention distance by block, trained and untrained; None if it was not measured."""
    measures = available(network.profile) if network.profile is not None else []
    return next((_measure_figure(network, one) for one in measures if one.is_distance), None)


def _measure_figure(network: NetworkRun, measure: Measure) -> Figure | None:
    decision = network.rule
    trained: Curve | None
    if decision is not None and decision.measure == measure.name:
        trained, untrained = _deciding_curves(decision)
    else:
        decision = None
        trained, untrained = curve(network.profile, measure.name), curve(network.untrained, measure.name)
    if trained is None:
        return None
    uniform = uniform_blocks(network)
    lines = [Line(trained.points, "trained", "trained", trained.low, trained.high, markers=True, hollow=uniform)]
    if untrained is not None:
        lines.insert(0, Line(untrained.points, "untrained", "untrained"))
    values = [y for line in lines for _, y in line.points] + [*(trained.low or ()), *(trained.high or ())]
    last = max(trained.blocks)
    under, over = [], []
    ends = nice_range([*values, decision.threshold] if decision else values, measure.low, measure.high)
    frame = framed((0.5, last + 0.5), ends)
    if decision is not None:
        under.append(shade(frame, decision.depth + 0.5, "beyond the rule"))
        over.append(level(frame, decision.threshold, f"threshold {decision.threshold_text}"))
    label = f"{capitalised(measure.title)} of the attention in {network.title} by block, trained and untrained"
    name = f"decision-{network.name}" if decision is not None else ""
    svg = chart(frame, lines, label, "block", trained.blocks, under, over, name)
    return Figure(measure.name, capitalised(measure.label), measure.reading, svg)


def uniform_blocks(network: NetworkRun) -> list[int]:
    """Return the blocks whose attention is indistinguishable from uniform."""
    return [] if network.rule is None else [block.block for block in network.rule.blocks if block.uniform]


def _deciding_curves(decision: Decision) -> tuple[Curve, Curve | None]:
    """Return the trained and untrained curves stored in the decision: the chart must show the values that decided."""
    blocks = decision.blocks
    numbers = tuple(block.block for block in blocks)
    low, high = [b.low for b in blocks if b.low is not None], [b.high for b in blocks if b.high is not None]
    known = len(low) == len(high) == len(blocks)
    trained = Curve(
        numbers, tuple(b.value for b in blocks), tuple(low) if known else None, tuple(high) if known else None
    )
    before = [block.untrained_value for block in blocks if block.untrained_value is not None]
    return trained, Curve(numbers, tuple(before)) if len(before) == len(blocks) else None


def slider(run: Run, network: NetworkRun) -> dict[str, Any] | None:
    """Return the data for the threshold slider: values and interval per block, and the results of the trained depths.

    None if the network has no decision or no profile.
    """
    decision = network.rule
    if decision is None or network.profile is None:
        return None
    measure = MEASURES[decision.measure]
    blocks = [
        {"low": b.value if b.low is None else b.low, "value": b.value, "high": b.value if b.high is None else b.high}
        for b in decision.blocks
    ]
    trained = {}
    for _, row in run.rows(network.name).iterrows():
        if row["seed"] == run.seeds[0] and is_number(row.get("dice_change_percent")):
            trained[int(row["blocks"])] = (
                f"The network with {plural(int(row['blocks']), 'block')} was trained: its Dice changes by "
                f"{signed(row['dice_change_percent'], 2)} %."
            )
    top = max([1.0, decision.threshold, *(block["high"] for block in blocks)])
    bottom = min(0.0, *(block["low"] for block in blocks))
    return {
        "blocks": blocks,
        "threshold": decision.threshold,
        "text": decision.threshold_text,
        "falls": measure.falls,
        "trained": trained,
        "least": round(bottom, 2),
        "most": round(top + 0.005, 2),
    }


def exchange_figure(network: NetworkRun) -> Figure | None:
    """Return the chart of the exchange curve; None if it was not measured.

    The change in Dice if tokens exchange nothing after each block, with its interval; and, where they were measured,
    with constant and with uniform attention.
    """
    curve = network.exchange
    if curve is None or curve.without_any is None:
        return None
    names = {"identity": "no exchange", "constant": "constant attention", "uniform": "uniform attention"}
    lines, values = [], [0.0]
    for place, (form, name) in enumerate(names.items()):
        changes = curve.changes(form)  # type: ignore[arg-type]
        if not changes:
            continue
        points = [(float(k), changes[k].percent) for k in sorted(changes)]
        points.append((float(curve.blocks), 0.0))
        ends = [(changes[k].low, changes[k].high) for k in sorted(changes)]
        known = [(low, high) for low, high in ends if low is not None and high is not None]
        bands = [*known, (0.0, 0.0)] if form == "identity" and len(known) == len(ends) else []
        low, high = [end[0] for end in bands] or None, [end[1] for end in bands] or None
        style = "trained" if form == "identity" else f"series-{place}"
        lines.append(Line(points, style, name, low, high, markers=form == "identity"))
        values += [y for _, y in points] + (low or []) + (high or [])
    margin = -100 * network.margin
    frame = framed((-0.5, curve.blocks + 0.5), nice_range([*values, margin], None, None))
    marks = [level(frame, margin, f"{fixed(-margin, 0)} % below")]
    title = "Agreement" if curve.agreement else "Dice"
    label = f"Change in {title} of {network.title} with exchange between patches off after each block, in %"
    svg = chart(frame, lines, label, "exchange off after block", range(curve.blocks + 1), (), marks)
    reads = (
        f"Change in {title} of the trained network, in %, if patches exchange nothing after this block"
        f"{' (other lines: constant or uniform attention there)' if len(lines) > 1 else ''}. Where the line stays near "
        "0, later blocks need no exchange. The band is the interval over cases."
    )
    return Figure("exchange", f"{title} without exchange", reads, svg)


ROLES = {
    "nothing": ("does nothing that Dice needs", "do nothing that Dice needs"),
    "pools": ("pools: it averages over all patches", "pool: they average over all patches"),
    "fixed places": ("looks at fixed places, the same in every image", "look at fixed places, the same in every image"),
    "content": ("looks by content", "look by content"),
    "exchange": ("exchanges between patches", "exchange between patches"),
}
"""What one block, and what several blocks do (`ExchangeCurve.roles`), as text."""


def block_figure(network: NetworkRun) -> Figure | None:
    """Return the chart of what attention does in each block; None if that was not measured.

    Content dependence by block, trained and before training; and in words, what each block does for Dice.
    """
    curve = network.exchange
    if curve is None or curve.without_any is None or not curve.content:
        return None
    lines, values = [], [0.0]
    pairs = (("untrained", curve.untrained_content, "before training"), ("trained", curve.content, "trained"))
    for style, content, name in pairs:
        points = [(float(block), float(heads.mean())) for block, heads in enumerate(content, start=1)]
        if points:
            lines.append(Line(points, style, name, markers=style == "trained"))
            values += [y for _, y in points]
    frame = framed((0.5, curve.blocks + 0.5), nice_range(values, 0.0, None))
    roles, kept = curve.roles(network.margin), curve.exchanging(network.margin)
    idle = next((block for block, role in enumerate(roles, start=1) if role == "nothing"), None)
    alone = f"Exchange in block {_listed(kept)} alone is enough for Dice of this network. " if kept else ""
    under = [] if idle is None else [shade(frame, idle - 0.5, "nothing for Dice")]
    label = f"Content dependence of the attention in {network.title} by block, trained and before training"
    svg = chart(frame, lines, label, "block", range(1, curve.blocks + 1), under)
    reads = (
        f"{_said(roles)} {alone}Content dependence is how much attention differs from image to image: 0 if every image "
        f"is looked at alike{'; dashed: before training' if curve.untrained_content else ''}. The words come from Dice "
        "with changed attention, the lines from attention alone."
    )
    return Figure("blocks", "What attention does in each block", reads, svg)


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers as text: "1", "1 and 3", "1, 2 and 5"."""
    *first, last = [str(number) for number in numbers]
    return f"{', '.join(first)} and {last}" if first else last


def _said(roles: list[str]) -> str:
    """Say in sentences what the blocks do: "Blocks 1 to 2 look by content. Blocks 3 to 12 do nothing …"."""
    sentences, first = [], 1
    for block, role in enumerate(roles, start=1):
        if block < len(roles) and roles[block] == role:
            continue
        name = f"Blocks {first} to {block}" if block > first else f"Block {block}"
        words = ROLES[role][block > first]
        sentences.append(f"{name} {words}.")
        first = block + 1
    return " ".join(sentences)


def training_figure(run: Run, network: NetworkRun) -> Figure | None:
    """Return the chart of training loss of the first seed and fold (`loss_figure`), or None if no loss is stored."""
    if run.history is None:
        return None
    rows = run.history[(run.history["network"] == network.name) & (run.history["seed"] == run.seeds[0])]
    if "fold" in rows.columns and len(rows):
        rows = rows[rows["fold"] == rows["fold"].iloc[0]]
    return loss_figure(rows, network.title)


def loss_figure(rows: pd.DataFrame, title: str) -> Figure | None:
    """Return the chart of the loss by step of a network's trainings: columns blocks, step, loss; None without rows.

    One line per depth. A moving average over a twentieth of the stored steps smooths the loss. Where the loss on tuning
    cases was measured, it is a second line with dots, in the same colour.
    """
    lines = []
    for place, blocks in enumerate(sorted(set(rows["blocks"]), reverse=True)):
        part = rows[rows["blocks"] == blocks]
        loss = part["loss"].rolling(max(1, len(part) // 20), min_periods=1).mean()
        thinned = list(zip(part["step"], loss, strict=True))[:: max(1, len(part) // 300)]
        name, style = plural(int(blocks), "block"), f"series-{place % 6}"
        lines.append(Line(thinned, style, name))
        if "tuning_loss" in part.columns and part["tuning_loss"].notna().any():
            measured = part[part["tuning_loss"].notna()]
            points = list(zip(measured["step"], measured["tuning_loss"], strict=True))
            lines.append(Line(points, style, f"{name}, tuning cases", markers=True))
    if not lines:
        return None
    # the first loss on tuning cases is often many times the others, because BatchNorm knows few batches by then
    values = [y for line in lines for _, y in list(line.points)[line.markers :]]
    frame = framed((0, float(rows["step"].max())), nice_range(values, 0.0, None))
    svg = chart(frame, lines, f"Training loss of {title} by step", "step")
    reads = "Mean of Dice loss and cross-entropy, by step."
    if any(line.markers for line in lines):
        reads += (
            " With dots: on tuning cases (above the chart: a dot on its edge). If these rise, the network overfits."
        )
    return Figure("training", "Training loss", reads, svg)
