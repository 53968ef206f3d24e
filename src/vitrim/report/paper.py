"""Comparison of a study with tables 1 to 3 of Hasany, Petitjean, Meriaudeau (SPIE Medical Imaging 2023)."""

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
"""Number of the table in the paper, by study."""

OTHER_NAMES = {
    "gm": "graymatter", "wm": "whitematter", "greymatter": "graymatter", "cerebrospinalfluid": "csf",
    "leftkidney": "kidneyl", "rightkidney": "kidneyr", "kidneyleft": "kidneyl", "kidneyright": "kidneyr",
}  # fmt: skip
"""Other names that data sets use for the classes of the paper, as returned by `_plain`."""


def paper_tables() -> dict[str, Any]:
    """Return tables 1 to 3 of the paper by study.

    Each has `classes`, `rows` (model, blocks, dice, average_dice, dice_change_percent, parameter_saving_percent) and
    `slices`.
    """
    text = (resources.files("vitrim.report") / "assets" / "paper_tables.json").read_text(encoding="utf-8")
    return {name: table for name, table in json.loads(text).items() if name in NUMBER}


def paper_study(run: Run) -> str | None:
    """Return the name of the data set of the paper that this study uses.

    None for phantoms, other data, and networks with another ViT.
    """
    settings = run.study.get("study")
    settings = settings if isinstance(settings, dict) else {}
    data = settings.get("data")
    imitated = isinstance(data, dict) and data.get("phantom") is not None
    return run.name if run.name in NUMBER and not imitated and settings.get("vit") is None else None


def comparison(run: Run) -> Table | None:
    """Return a table with three rows per network that both trained: this study, the paper, and the difference.

    None if the study does not use a data set of the paper, or has no such network.
    """
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
        f"The numbers of the paper are from its table {number}: {CITATION}.",
        f"The text of the paper gives {slices['train']} training slices and {slices['validation']} validation slices; "
        f"its table gives {slices['dataset_size_printed_in_table']}. The paper does not say whether Dice is computed "
        "per slice or per volume. Here it is computed per volume.",
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
    """Return a class name in lower-case letters and digits only, with the name of the paper for known synonyms."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return OTHER_NAMES.get(plain, plain)
