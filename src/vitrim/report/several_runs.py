"""Several studies in one page and one LaTeX table, as tables 1 to 3 of the paper: data sets, seeds, networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitrim.errors import InputError
from vitrim.report.answers import Answer, answers
from vitrim.report.formatting import NOTHING, fixed, interval_text, is_number, listing, signed
from vitrim.report.run import Run, read_run
from vitrim.report.study_table import (
    AVERAGE,
    BLOCKS,
    CHANGE,
    INTERVAL,
    MODEL,
    ROLE,
    SAVED,
    SEED,
    SIZE,
    not_worse,
    results_table,
)
from vitrim.report.tables import Cell, Column, Table, latex_together, select

STUDY = "Study"
CAPTION = (
    "Dice and savings by truncation. Dice is computed per case, in 3D on the original grid (per picture in 2D). "
    "The change is relative to the same network with all its blocks."
)


@dataclass(frozen=True)
class NamedRun:
    """A study with a name that no other study of the comparison has."""

    label: str
    run: Run
    answers: tuple[Answer, ...]


def read_runs(folders: Sequence[Path]) -> list[NamedRun]:
    """Read several studies.

    Raises InputError if a folder holds no finished study, or occurs twice.
    """
    for place, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:place]]:
            raise InputError(f"the study {folder} is named twice: name each study once")
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    return [NamedRun(name, run, tuple(answers(run))) for name, run in zip(names, runs, strict=True)]


def answers_table(runs: Sequence[NamedRun]) -> Table:
    """Return one row per study and network: what is recommended, how far it is shown, what it costs and saves."""
    columns = (
        Column(STUDY, number=False),
        Column(MODEL, number=False),
        Column("Recommended", number=False),
        Column("Verdict", number=False),
        Column(CHANGE),
        Column(INTERVAL),
        Column(SAVED),
        Column("Cases"),
        Column("Seeds"),
    )
    rows = tuple(_answer_row(one, answer) for one in runs for answer in one.answers)
    notes = (
        "Verdict: needs (with one block less Dice is worse), enough (whether fewer are was not shown), nothing (the "
        "transformer does nothing for Dice), not shown (no smaller depth was shown to be as good). The change is that "
        "of the recommended depth or, where none was shown, of the smallest depth tried.",
    )
    return Table(columns, rows, notes)


def _answer_row(one: NamedRun, answer: Answer) -> tuple[Cell, ...]:
    result = answer.result
    words = [answer.verdict, *(["provisional"] if answer.provisional else [])]
    words += [answer.loss] if answer.loss else []
    row = None if answer.depth is None else one.run.row(answer.network.name, answer.depth, one.run.seeds[0])
    saved = None if row is None else row.get("parameters_saved_percent")
    bad = answer.verdict == "not shown" or bool(answer.loss)
    low, high = (None, None) if result is None else (result.low, result.high)
    return (
        Cell(one.label, one.label),
        Cell(answer.network.title, answer.network.title),
        Cell(answer.recommended, answer.depth),
        Cell(", ".join(words), answer.verdict, "bad" if bad else "good"),
        Cell(NOTHING) if result is None else Cell(signed(result.percent, 2), result.percent),
        Cell(interval_text(low, high, 2), low),
        Cell(fixed(saved, 2), float(saved)) if is_number(saved) else Cell(NOTHING),
        Cell(NOTHING) if result is None else Cell(str(result.cases), result.cases),
        Cell(NOTHING) if result is None else Cell(str(result.seeds), result.seeds),
    )


def data_tables(runs: Sequence[NamedRun], view: Literal["paper", "verdicts", "all"] = "all") -> list[tuple[str, Table]]:
    """Return one table per data set, and its title: the names of its studies.

    Studies of the same data and classes stand in one table. A view has the columns of the paper, the verdicts, or both.
    """
    groups: dict[tuple[Any, ...], list[NamedRun]] = {}
    for one in runs:
        groups.setdefault((str(one.run.study.get("data", one.label)), one.run.classes), []).append(one)
    return [(listing([one.label for one in group]), _data_table(group, view)) for group in groups.values()]


def _data_table(group: Sequence[NamedRun], view: Literal["paper", "verdicts", "all"]) -> Table:
    margins = dict.fromkeys(margin for one in group for margin in one.run.margins)
    verdicts = [INTERVAL, *(not_worse(margin) for margin in margins), ROLE]
    headings = {
        "paper": [MODEL, BLOCKS, SIZE, *group[0].run.classes, AVERAGE, CHANGE, SAVED],
        "verdicts": [MODEL, BLOCKS, AVERAGE, CHANGE, *verdicts],
        "all": [MODEL, BLOCKS, SIZE, *group[0].run.classes, AVERAGE, CHANGE, SAVED, *verdicts],
    }[view]
    seeds = [{int(seed) for seed in one.run.results["seed"]} for one in group]
    lead = [STUDY] if len(group) > 1 else []
    lead += [SEED] if len(set().union(*seeds)) > 1 else []
    rows = [row for one in group for row in _rows(one, headings, lead)]
    columns = {column.heading: column for one in group for column in results_table(one.run).columns}
    heads = [Column(name, number=name == SEED) for name in lead]
    return Table(
        (*(columns[name] for name in headings[:1]), *heads, *(columns[name] for name in headings[1:])), tuple(rows)
    )


def _rows(one: NamedRun, headings: Sequence[str], lead: Sequence[str]) -> list[tuple[Cell, ...]]:
    """Return the rows of a study in the order of `headings`, with study and seed after the model."""
    table = results_table(one.run)
    own = select(table, headings)
    have = [column.heading for column in own.columns]
    found = []
    for (_, stored), row in zip(one.run.results.iterrows(), own.rows, strict=True):
        cells = [row[have.index(name)] if name in have else Cell(NOTHING) for name in headings]
        seed, count = int(stored["seed"]), stored.get("seeds")
        seeds = f"{int(count)} seeds" if is_number(count) and count > 1 else str(seed)
        extra = {STUDY: Cell(one.label, one.label), SEED: Cell(seeds, seed)}
        found.append((cells[0], *(extra[name] for name in lead), *cells[1:]))
    return found


def latex_table(runs: Sequence[NamedRun]) -> str:
    """Return all studies as one LaTeX table, a part for each data set, as tables 1 to 3 of the paper."""
    return latex_together(data_tables(runs, "paper"), CAPTION, "tab:vitrim-studies")
