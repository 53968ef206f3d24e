"""Table of a depth sweep: the depth that each rule chose, and the depth that was needed."""

from __future__ import annotations

from vitrim.compression.depth_rules import RULES
from vitrim.config.names import NETWORK_TITLES
from vitrim.report.formatting import is_number, signed
from vitrim.report.run import Run
from vitrim.report.tables import Cell, Column, Table


def rules_table(run: Run) -> Table | None:
    """Return a table with one row per network, margin and rule; None if the study is not a depth sweep."""
    if run.rules is None or run.rules.empty:
        return None
    several = len(run.rules[["seed", "fold"]].drop_duplicates()) > 1
    columns = [
        Column("Model", number=False),
        *([Column("Seed"), Column("Fold")] if several else []),
        Column("Margin, %"),
        Column("Rule", number=False),
        Column("Blocks chosen"),
        Column("Blocks needed"),
        Column("% Dice change at that depth"),
        Column("Was the rule right?", number=False),
    ]
    rows = []
    for _, row in run.rules.iterrows():
        network, depth, change = str(row["network"]), row["depth"], row["dice_change_percent"]
        rows.append(
            (
                Cell(NETWORK_TITLES.get(network, network), network),
                *([_count(row["seed"]), _count(row["fold"])] if several else []),
                Cell(f"{row['margin_percent']:g}", float(row["margin_percent"])),
                Cell(_title(str(row["rule"])), str(row["rule"])),
                _count(depth) if is_number(depth) else Cell("cannot choose"),
                _between(row["needed_low"], row["needed_high"]),
                Cell(signed(change, 2), float(change)) if is_number(change) else Cell("not trained"),
                Cell(str(row["verdict"]), str(row["verdict"])),
            )
        )
    notes = (
        "Blocks needed, a to b: a is the smallest trained depth that was not shown worse than the full network by the "
        "margin, and b the smallest that was shown not worse. A rule is right between a and b. At most b: no smaller "
        "depth was shown worse. One half of the held-out cases (every second one) gives a and b. The accuracy rule "
        "uses only the other half, so no rule is judged on cases that it has used.",
    )
    return Table(tuple(columns), tuple(rows), notes)


def _between(low: object, high: object) -> Cell:
    last = _count(high)
    if not is_number(low):
        return Cell(f"at most {last.text}", last.value)
    first = _count(low)
    return last if first.value == last.value else Cell(f"{first.text} to {last.text}", last.value)


def _count(value: object) -> Cell:
    number = int(float(str(value)))
    return Cell(str(number), number)


def _title(name: str) -> str:
    """Return the title of a rule. An unknown rule (from another version) keeps its name."""
    return next((rule.title for known, rule in RULES.items() if known == name), name)
