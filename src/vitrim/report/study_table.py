"""The results of a study as a table: all of it in the paper's order, and views of it that fit into a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitrim.config.names import NETWORK_TITLES
from vitrim.data.readers import LAYOUTS
from vitrim.metrics.statistics import FIRM_CASES, FIRM_SEEDS, VERDICT_CASES
from vitrim.report.formatting import NOTHING, fixed, interval_text, is_number, signed, whole
from vitrim.report.run import Run
from vitrim.report.tables import Cell, Column, Table, select, without_constants

MODEL, BLOCKS, SEED, AVERAGE = "Model", "Transformer blocks", "Seed", "Average Dice"
SIZE, CHANGE, SAVED = "Data set size", "% Dice change", "% parameters saved"
INTERVAL, ROLE = "95 % interval of the change", "Why trained"
PARAMETERS, OPERATIONS, MEMORY = "Parameters, millions", "Multiply-adds, G", "Peak memory, MiB"
TIME = "ms per slice"
KEYS = (MODEL, BLOCKS, SEED)
TONES: dict[Any, Literal["", "good", "bad", "open"]] = {"not worse": "good", "worse": "bad", "undecided": "open"}


def page_tables(run: Run) -> tuple[Table, list[tuple[str, Table]]]:
    """Return the table of verdicts, which fits into a page, and tables with the details by title."""
    table = results_table(run)
    verdicts = [not_worse(margin) for margin in run.margins]
    overview = select(table, [*KEYS, AVERAGE, CHANGE, INTERVAL, *verdicts, SAVED, TIME, ROLE])
    hd95 = [column.heading for column in table.columns if column.heading.startswith("HD95")]
    plain = replace(table, notes=())
    details = {
        "Dice of every class, and HD95": [*KEYS, *run.classes, AVERAGE, *hd95],
        "Size and cost": [*KEYS, SIZE, PARAMETERS, OPERATIONS, TIME, MEMORY],
    }
    return without_constants(overview, (MODEL, BLOCKS, AVERAGE, *verdicts)), [
        (title, without_constants(select(plain, headings), KEYS)) for title, headings in details.items()
    ]


def not_worse(margin: str) -> str:
    """Return the heading of the verdicts at a margin in percent."""
    return f"Not worse by {margin} %?"


def results_table(run: Run) -> Table:
    """Return one row per trained network: columns of tables 1 to 3 of the paper, then interval, verdicts and cost."""
    costs, as_one = _costs(run), _absent_as_one(run)
    several = len(run.seeds) > 1
    unit = _first(run.results, "hd95_unit") or "voxels"
    columns = [
        Column(MODEL, number=False),
        Column(BLOCKS),
        Column(SIZE),
        *(Column(name) for name in run.classes),
        Column(AVERAGE),
        Column(CHANGE),
        Column(SAVED),
        Column(ROLE, number=False, beyond=True),
        *([Column(SEED, beyond=True)] if several else []),
        Column(INTERVAL, beyond=True),
        *(Column(not_worse(margin), number=False, beyond=True) for margin in run.margins),
        Column(PARAMETERS, beyond=True),
        Column(OPERATIONS, beyond=True),
        Column(TIME, beyond=True),
        Column(MEMORY, beyond=True),
        Column(f"HD95, {unit}", beyond=True),
    ]
    rows = []
    for _, row in run.results.iterrows():
        network, blocks, seed = str(row["network"]), int(row["blocks"]), int(row["seed"])
        cost = costs.get((network, blocks, seed), {})
        hd95 = [row.get(f"hd95_{name}") for name in run.classes]
        known = [float(value) for value in hd95 if is_number(value)]
        rows.append(
            (
                Cell(NETWORK_TITLES.get(network, network), NETWORK_TITLES.get(network, network)),
                Cell(str(blocks), blocks),
                Cell(whole(row.get("train_slices")), _value(row.get("train_slices"))),
                *(_dice_cell(row, name, as_one) for name in run.classes),
                _cell(row.get("average_dice"), 3),
                _cell(row.get("dice_change_percent"), 2, sign=True),
                _cell(row.get("parameters_saved_percent"), 2),
                Cell(role(row.get("role")), role(row.get("role"))),
                *([Cell(str(seed), seed)] if several else []),
                Cell(
                    interval_text(row.get("change_low_percent"), row.get("change_high_percent"), 2),
                    _value(row.get("change_low_percent")),
                ),
                *(_verdict_cell(row, margin) for margin in run.margins),
                _cell(_scaled(row.get("parameters"), 1e-6), 2),
                _cell(_scaled(row.get("multiply_adds"), 1e-9), 2),
                _cell(cost.get("milliseconds_per_slice"), 1),
                _cell(cost.get("peak_memory_mib"), 0),
                _cell(float(np.mean(known)) if known else None, 1),
            )
        )
    return Table(tuple(columns), tuple(rows), _notes(run))


def role(value: Any) -> str:
    """Say why a network of this depth was trained."""
    words = {"full": "full network", "noise": "full network, another seed", "decided": "chosen"}
    return ", ".join(words.get(part, part) for part in value.split("+")) if isinstance(value, str) else NOTHING


def _cell(value: Any, digits: int, sign: bool = False) -> Cell:
    return Cell(signed(value, digits) if sign else fixed(value, digits), _value(value))


def _verdict_cell(row: pd.Series, margin: str) -> Cell:
    """Return the verdict. If it is undecided, add how many cases would decide it with 80 % power."""
    verdict, needed = row.get(f"verdict_{margin}"), row.get(f"cases_needed_{margin}")
    if verdict == "undecided" and is_number(needed) and needed > row.get("validation_cases", 0):
        return Cell(f"{verdict} ({int(needed)} cases needed)", verdict, "open")
    return Cell(verdict, verdict, TONES.get(verdict, "")) if isinstance(verdict, str) else Cell(NOTHING)


def _dice_cell(row: pd.Series, name: str, as_one: dict[tuple[Any, ...], float]) -> Cell:
    """Return the Dice of a class.

    If not all cases have the class, add their number, the number of false positives and, if known, the mean with 1 for
    cases that lack the class in both masks.
    """
    cell = _cell(row.get(f"dice_{name}"), 3)
    counted, total = row.get(f"cases_{name}"), row.get("validation_cases")
    if is_number(counted) and is_number(total) and int(counted) < int(total):
        other = as_one.get((row["network"], row["blocks"], name))
        beside = "" if other is None else f"; {fixed(other, 3)} if absent counts as 1"
        if is_number(wrong := row.get(f"false_positive_cases_{name}")) and wrong:
            beside = f", false positive in {int(wrong)}{beside}"
        return Cell(f"{cell.text} ({int(counted)} of {int(total)}{beside})", cell.value)
    return cell


def _absent_as_one(run: Run) -> dict[tuple[Any, ...], float]:
    """Return the mean Dice with 1 for cases without the class, by (network, blocks, class).

    Empty if the layout of the data does not report this convention, or if there is no per-case table.
    """
    settings = run.study.get("study")
    data = settings.get("data") if isinstance(settings, dict) else None
    layout = LAYOUTS.get(str(data.get("layout"))) if isinstance(data, dict) else None
    if run.cases is None or layout is None or not layout.absent_also_as_one:
        return {}
    filled = run.cases.assign(dice=run.cases["dice"].fillna(1.0))
    return filled.groupby(["network", "blocks", "class"])["dice"].mean().to_dict()


def provisional_note(run: Run) -> tuple[str, ...]:
    """Return the note that the verdicts are provisional, for a table that stands alone; empty if they are firm."""
    if not run.results.get("provisional", pd.Series(dtype=object)).eq(True).any():
        return ()
    return (f"The verdicts are provisional: there are fewer than {FIRM_CASES} cases or fewer than {FIRM_SEEDS} seeds.",)


def _notes(run: Run) -> tuple[str, ...]:
    row = run.results.iloc[0]
    total = row.get("validation_cases")
    planar = _first(run.results, "hd95_unit") == "pixels"
    notes = []
    if is_number(total):
        how = "per picture in 2D on its own pixels" if planar else "per case in 3D on the original grid"
        notes.append(f"Dice is computed {how}, then averaged over the {int(total)} validation cases.")
        if any(is_number(row.get(f"cases_{c}")) and int(row[f"cases_{c}"]) < int(total) for c in run.classes):
            notes.append(
                "(n of m): n of m cases have the class in their reference, and the mean is over these. A missed "
                "structure counts as 0. False positive in k: the class was predicted in k of the other cases."
            )
    if run.margins:
        notes.append(
            "The change is relative to the same network with all its blocks. Its interval is paired over cases, and "
            "covers other cases and, with several seeds, other trainings. Not worse by x %: the whole interval lies "
            "above −x %, and so it does at all larger depths that were trained. Worse: the whole interval lies below "
            f"−x %. Undecided: neither, or fewer than {VERDICT_CASES} cases."
        )
    if run.cost is not None:
        notes.append(
            "Milliseconds were measured after the training of each network, which can lie hours apart, so small "
            "differences mean nothing."
        )
    if _first(run.results, "hd95_unit"):
        whole = "picture" if planar else "volume"
        notes.append(f"HD95 is averaged over classes. For a missed structure it is the diagonal of the {whole}.")
        if any(str(column).startswith("cases_needed_") for column in run.results):
            notes.append(
                "Cases needed: with so many cases, a network that loses nothing is shown to be not worse in 4 of 5 "
                "studies."
            )
    if run.study.get("judged_again"):
        notes.append("An older version trained this study. This version computed intervals and verdicts again.")
    return tuple(notes)


def _costs(run: Run) -> dict[tuple[str, int, int], dict[str, Any]]:
    if run.cost is None:
        return {}
    return {(str(c["network"]), int(c["blocks"]), int(c["seed"])): dict(c) for _, c in run.cost.iterrows()}


def _value(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _scaled(value: Any, factor: float) -> float | None:
    return float(value) * factor if is_number(value) else None


def _first(table: pd.DataFrame, column: str) -> str | None:
    if column not in table.columns:
        return None
    known = table[column].dropna()
    return str(known.iloc[0]) if len(known) else None
