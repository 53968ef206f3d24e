"""The depth of one network at a glance: Dice by depth, what was proposed, tried and kept, and what each depth costs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from vitrim.report.charts import Figure
from vitrim.report.formatting import fixed, is_number, listing, plural
from vitrim.report.run import NetworkRun, Run
from vitrim.report.svg import (
    Line,
    band,
    chart,
    flag,
    framed,
    interval,
    nice_range,
    number_mark,
    polyline,
    right_axis,
    ring,
)

FEW = 8
"""With fewer trained depths, the axis names each of them; otherwise it names every second depth."""


def depth_figure(run: Run, network: NetworkRun) -> Figure | None:
    """Return the chart of average Dice by depth on held-out cases; None if only the full network was trained.

    Shows the interval of each depth, the margin as a band, the proposed and the kept depth, the order in which depths
    were tried, and on a second axis parameters and milliseconds.
    """
    rows = run.rows(network.name)
    noise = rows[rows["role"] == "noise"]
    rows = rows[(rows["seed"] == run.seeds[0]) & (rows["role"] != "noise")].sort_values("blocks")
    rows = rows[rows["average_dice"].notna()]
    full = run.full_blocks(network.name)
    if len(rows) < 2 or full not in rows["blocks"].tolist():
        return None
    dice = {int(row["blocks"]): float(row["average_dice"]) for _, row in rows.iterrows()}
    ends: dict[int, tuple[float, float]] = {}
    for _, row in rows.iterrows():
        low, high = row.get("change_low_percent"), row.get("change_high_percent")
        if is_number(low) and is_number(high):
            ends[int(row["blocks"])] = (dice[full] * (1 + low / 100), dice[full] * (1 + high / 100))
    floor = dice[full] * (1 - network.margin)
    known = [*dice.values(), *(end for pair in ends.values() for end in pair), *noise["average_dice"], floor]
    bottom, top = nice_range(known, None, None)
    space = (top - bottom) * 0.2  # for the numbers of the trials below, and the names of the flags above
    frame = framed((-0.5, full + 0.5), (bottom - space, top + 1.6 * space), height=320, right=56)
    shares = _shares(run, network.name, rows, full)
    largest = max([100.0, *(y for points in shares.values() for _, y in points)])
    own = replace(frame, y=(0.0, 1.08 * largest))
    under = [
        band(frame, floor, dice[full], f"margin of {100 * network.margin:g} %"),
        *(polyline(own, points, style) for style, points in shares.items()),
    ]
    over = [interval(frame, blocks, *pair, "trained") for blocks, pair in ends.items()]
    over += [ring(frame, full, float(value), "full network, another seed") for value in noise["average_dice"]]
    if shares:
        over.append(right_axis(frame, own, "% of the full network"))
    decision = network.decision
    order: list[int] = []
    if decision is not None:
        order = [depth for depth in decision.order if depth in dice]
        same = decision.proposed == decision.depth
        over.append(flag(frame, decision.proposed, f"proposed{' and kept' if same else ''}: {decision.proposed}"))
        over += [] if same else [flag(frame, decision.depth, f"kept: {decision.depth}", 1)]
        over += [number_mark(frame, depth, place) for place, depth in enumerate(order, start=1)]
    line = Line(list(dice.items()), "trained", "average Dice", markers=True)
    label = f"Average Dice of {network.title} by number of blocks: " + listing(
        [f"{fixed(value, 3)} with {plural(blocks, 'block')}" for blocks, value in sorted(dice.items(), reverse=True)]
    )
    numbers = sorted({0, *dice, full}) if len(dice) < FEW else range(0, full + 1, 2)
    svg = chart(frame, [line], label, "transformer blocks", numbers, under, over)
    reads = (
        "Average Dice on held-out cases (left axis); the bars are 95 % intervals of the change from the full network."
    )
    if decision is not None:
        reads += f" The rule “{decision.rule}” proposed {plural(decision.proposed, 'block')}."
    if order:
        depths = listing([str(depth) for depth in order])
        reads += f" The search tried {depths} of {full} blocks{', in this order' if len(order) > 1 else ''}."
    if "series-2" in shares:
        reads += " Each network was timed after its own training, so milliseconds of different depths compare roughly."
    return Figure("depth", "Dice by depth", reads, svg)


def _shares(run: Run, network: str, rows: pd.DataFrame, full: int) -> dict[str, list[tuple[float, float]]]:
    """Return parameters and milliseconds of each depth in percent of the full network, by the style of their line."""
    found = {}
    tables = {"series-1": rows.set_index("blocks").get("parameters")}
    if run.cost is not None:
        cost = run.cost[run.cost["network"] == network]
        if "milliseconds_per_slice" in cost:
            tables["series-2"] = cost.groupby("blocks")["milliseconds_per_slice"].mean()
    for style, values in tables.items():
        if values is None or not is_number(values.get(full)) or not values[full]:
            continue
        found[style] = [(float(k), 100 * float(v) / float(values[full])) for k, v in values.items() if is_number(v)]
    return found
