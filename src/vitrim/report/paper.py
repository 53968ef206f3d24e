"""The paper's own numbers beside ours: tables 1 to 3 of Hasany, Petitjean, Meriaudeau (SPIE Medical Imaging 2023)."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from vitrim.config.names import NETWORK_TITLES
from vitrim.report.formatting import NOTHING, fixed, is_number, signed
from vitrim.report.run import Run
from vitrim.report.tables import Cell, Column, Table

CITATION = (
    "S. N. Hasany, C. Petitjean, F. Meriaudeau: A study of attention information from transformer layers in hybrid "
    "medical image segmentation networks. SPIE Medical Imaging 2023, doi 10.1117/12.2652215"
)
NUMBER = {"ibsr18": 1, "emidec": 2, "synapse": 3}
"""Which table of the paper."""

OTHER_NAMES = {
    "gm": "graymatter", "wm": "whitematter", "greymatter": "graymatter", "cerebrospinalfluid": "csf",
    "leftkidney": "kidneyl", "rightkidney": "kidneyr", "kidneyleft": "kidneyl", "kidneyright": "kidneyr",
}  # fmt: skip
"""How data sets call the paper's classes."""


def paper_tables() -> dict[str, Any]:
    """Tables 1 to 3 by study: `classes`, `rows` (model, blocks, dice, average_dice, changes), `slices`."""
    text = (resources.files("vitrim.report") / "assets" / "paper_tables.json").read_text(encoding="utf-8")
    return {name: table for name, table in json.loads(text).items() if name in NUMBER}


def paper_study(run: Run) -> str | None:
    """The paper's data set that this study repeats: its name, on real data; None for any other study."""
    settings = run.study.get("study")
    data = settings.get("data") if isinstance(settings, dict) else None
    imitated = isinstance(data, dict) and data.get("phantom") is not None
    return run.name if run.name in NUMBER and not imitated else None


def comparison(run: Run) -> Table | None:
    """Ours, the paper's and the difference, for every network that the paper trained too; None for other studies."""
    study = paper_study(run)
    if study is None:
        return None
    paper = paper_tables()[study]
    ours = {_plain(name): name for name in run.classes}
    classes = [(name, ours.get(_plain(name))) for name in paper["classes"]]
    columns = [
        Column("Model", number=False),
        Column("Transformer blocks"),
        Column("Source", number=False),
        *(Column(name) for name, _ in classes),
        Column("Average Dice"),
        Column("% Dice change"),
        Column("% parameters saved"),
    ]
    rows = []
    for theirs in paper["rows"]:
        network = next(name for name, title in NETWORK_TITLES.items() if title == theirs["model"])
        row = run.row(network, theirs["blocks"], run.seeds[0])
        if row is None:
            continue
        pairs = [(row.get(f"dice_{mine}") if mine else None, theirs["dice"][name]) for name, mine in classes]
        pairs.append((row.get("average_dice"), theirs["average_dice"]))
        percents = [
            (row.get("dice_change_percent"), theirs["dice_change_percent"]),
            (row.get("parameters_saved_percent"), theirs["parameter_saving_percent"]),
        ]
        head = (Cell(theirs["model"], theirs["model"]), Cell(str(theirs["blocks"]), theirs["blocks"]))
        for place, source in enumerate(("this study", "paper")):
            dice = (Cell(fixed(pair[place], 3), _number(pair[place])) for pair in pairs)
            change, saved = (pair[place] for pair in percents)
            cells = (Cell(signed(change, 2), _number(change)), Cell(fixed(saved, 2), _number(saved)))
            rows.append((*head, Cell(source, source), *dice, *cells))
        rows.append(
            (
                *head,
                Cell("difference", "difference"),
                *(_difference(pair, 3) for pair in pairs),
                *(_difference(pair, 2) for pair in percents),
            )
        )
    number, slices = NUMBER[study], paper["slices"]
    notes = (
        f"The paper's numbers are those of its table {number}: {CITATION}.",
        f"The paper's text gives {slices['train']} training and {slices['validation']} validation slices (its table "
        f"prints {slices['dataset_size_printed_in_table']}), and does not say whether Dice is of slices or of volumes; "
        "here it is of volumes.",
    )
    return Table(tuple(columns), tuple(rows), notes) if rows else None


def _difference(pair: tuple[Any, Any], digits: int) -> Cell:
    ours, theirs = pair
    if not is_number(ours) or not is_number(theirs):
        return Cell(NOTHING)
    return Cell(signed(ours - theirs, digits), float(ours - theirs))


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def _plain(name: str) -> str:
    """A class name without case, spaces and brackets, in the paper's words."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return OTHER_NAMES.get(plain, plain)
