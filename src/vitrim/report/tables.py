"""Tables of text, as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from vitrim.report.formatting import NOTHING


@dataclass(frozen=True)
class Column:
    """A column: `number` columns are aligned right, `beyond` columns are not in the paper."""

    heading: str
    number: bool = True
    beyond: bool = False


@dataclass(frozen=True)
class Cell:
    """The text of a cell, the value for sorting, and whether the text is good or bad news."""

    text: str
    value: float | str | None = None
    tone: Literal["", "good", "bad", "open"] = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of equal length; `notes` are lines below the table."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def select(table: Table, headings: Sequence[str]) -> Table:
    """Return the columns with these headings, in this order. Headings that the table lacks are left out."""
    have = [column.heading for column in table.columns]
    places = [have.index(heading) for heading in headings if heading in have]
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    return Table(tuple(table.columns[place] for place in places), rows, table.notes)


def without_constants(table: Table, keep: Container[str] = ()) -> Table:
    """Leave out columns with the same text in every row, except those in `keep`. Notes give the text instead."""
    if len(table.rows) < 2:
        return table
    headings, notes = [], []
    for place, column in enumerate(table.columns):
        texts = {row[place].text for row in table.rows}
        if column.heading in keep or len(texts) > 1:
            headings.append(column.heading)
        elif texts != {NOTHING}:
            notes.append(f"{column.heading}: {texts.pop()} in every row.")
    chosen = select(table, headings)
    return Table(chosen.columns, chosen.rows, (*table.notes, *notes))


def markdown(table: Table) -> str:
    """Return the table as GitHub Markdown with its notes."""
    rows = [[cell.text for cell in row] for row in table.rows]
    text = markdown_table([column.heading for column in table.columns], rows, [c.number for c in table.columns])
    return "\n\n".join([text, *table.notes]) + "\n"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool] | None = None) -> str:
    """Return a GitHub Markdown table without a final line break.

    numbers: whether each column holds numbers; by default all columns except the first.
    """
    numbers = [place > 0 for place in range(len(heading))] if numbers is None else numbers
    ruler = "|" + "|".join("---:" if number else "---" for number in numbers) + "|"
    lines = ["| " + " | ".join(_pipe(text) for text in cells) + " |" for cells in (heading, *rows)]
    return "\n".join([lines[0], ruler, *lines[1:]])


def latex(table: Table, caption: str, label: str) -> str:
    """Return the table as LaTeX with booktabs: the columns of the paper, and all others in a second tabular below."""
    parts = [
        [i for i, column in enumerate(table.columns) if not column.beyond],
        [0, 1, *(i for i, column in enumerate(table.columns) if column.beyond)],
    ]
    if not any(column.beyond for column in table.columns):
        parts.pop()
    return _float([_fitted(table, part) for part in parts], " ".join([caption, *table.notes]), label)


def latex_together(tables: Sequence[tuple[str, Table]], caption: str, label: str) -> str:
    """Return several tables with their titles as one LaTeX table."""
    bodies = [
        rf"\textbf{{{tex_escape(title)}}}\par\smallskip{chr(10)}{_fitted(table, range(len(table.columns)))}"
        for title, table in tables
    ]
    return _float(bodies, caption, label)


def _float(bodies: Sequence[str], caption: str, label: str) -> str:
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
        r"\begin{table}",
        r"\centering",
        "\n\n\\medskip\n".join(bodies),
        rf"\caption{{{tex_escape(caption)}}}",
        rf"\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _fitted(table: Table, columns: Sequence[int]) -> str:
    """Return some columns as a tabular in the width of the text."""
    return rf"\resizebox{{\linewidth}}{{!}}{{%{chr(10)}{_tabular(table, columns)}}}"


def _tabular(table: Table, columns: Sequence[int]) -> str:
    """Return some columns as a tabular made by pandas, with space between models."""
    frame = pd.DataFrame([[row[i].text for i in columns] for row in table.rows])
    frame.columns = pd.Index([tex_escape(table.columns[i].heading) for i in columns])
    style = frame.style.format(tex_escape).hide(axis="index")
    form = "".join("r" if table.columns[i].number else "l" for i in columns)
    lines = style.to_latex(hrules=True, column_format=form).rstrip().splitlines()
    start = next(n for n, line in enumerate(lines) if line == r"\midrule") + 1
    models = [row[0].text for row in table.rows]
    for place in range(len(models) - 1, 0, -1):
        if models[place] != models[place - 1]:
            lines.insert(start + place, r"\addlinespace")
    return "\n".join(lines)


TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--", "×": r"$\times$",
    "≥": r"$\geq$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
}  # fmt: skip


def tex_escape(text: str) -> str:
    """Escape text for LaTeX, so that it contains no command."""
    return "".join(TEX.get(character, character) for character in " ".join(text.split()))


def _pipe(text: str) -> str:
    """Escape text for a Markdown cell, so that it neither ends the cell nor counts as HTML."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
