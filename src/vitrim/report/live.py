"""report.html of a study that runs: what is known so far, written again as the study goes.

It says no verdict. The report of the finished study takes its place.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd

from vitrim.config.names import NETWORK_TITLES
from vitrim.files import read_arrays, read_json, read_table, short_reason, write_text
from vitrim.metrics.statistics import network_dice
from vitrim.progress import Reporter
from vitrim.report.charts import Figure, distance_figure, loss_figure
from vitrim.report.formatting import fixed
from vitrim.report.html_page import live_page
from vitrim.report.images import class_colour, grey, overlay
from vitrim.report.run import read_network
from vitrim.report.tables import Cell, Column, Table
from vitrim.studies.status import SLICES, read_status

REFRESH = 10
"""Seconds after which a browser reads the page again."""


SHARE = 50

PARTS = {"train": "training", "tuning": "tuning", "validation": "held-out"}
"""The parts of a split, as the page names them."""


class LiveReport:
    """Writes the page when it is called, from the first training on. A finished study keeps its report.

    The page takes at most one part in `SHARE` of the time, however many trainings there are.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder, self.reporter = folder, reporter
        self.began = self.failed = False
        self.next = 0.0
        """When the page may be written again, on the monotonic clock."""

    def __call__(self, doing: str) -> None:
        """Write the page; `doing` says what the study does now."""
        self.began = self.began or doing.startswith("train ")
        begin = time.monotonic()
        if self.began and not self.failed and begin >= self.next:
            self._try(doing, running=True)
            now = time.monotonic()
            self.next = now + SHARE * (now - begin)

    def ended(self) -> None:
        """Write the page of a study that stopped before its report, if it was begun."""
        if self.began and not self.failed:
            self._try("", running=False)

    def _try(self, doing: str, running: bool) -> None:
        try:
            self._write(doing, running)
        except Exception as error:  # a page must not end the training that it tells of
            self.failed = True
            self.reporter.say(f"note: the page of the running study cannot be written: {short_reason(error)}")

    def _write(self, doing: str, running: bool) -> None:
        folder = self.folder
        trials, data = _trials(folder), read_json(folder / "data.json")
        classes = [str(name) for name in list(data.get("classes", {}).values())[1:]]
        split = read_json(folder / "split.json")
        text = live_page(
            study=str(read_json(folder / "study.json").get("study", {}).get("name", folder.name)),
            doing=doing,
            running=running,
            refresh=REFRESH,
            written=time.strftime("%H:%M:%S"),
            sizes=[(word, len(split[part])) for part, word in PARTS.items() if part in split],
            table=_table(trials, read_status(folder)),
            pictures=_pictures(read_arrays(folder / SLICES)),
            legend=[(name, class_colour(index)) for index, name in enumerate(classes, start=1)],
            charts=_charts(folder, trials),
        )
        write_text(folder / "report.html", text)


def _trials(folder: Path) -> dict[str, tuple[dict[str, Any], Path]]:
    """Content and folder of each finished trial, by key."""
    return {path.parent.name: (read_json(path), path.parent) for path in sorted(folder.glob("trials/*/trial.json"))}


def _table(trials: dict[str, tuple[dict[str, Any], Path]], status: dict[str, Any]) -> Table:
    """One row for each training that is known so far, in the order of the study."""
    rows = []
    for each in status.get("trials", []):
        found = trials.get(each["trial"])
        dice, cases = Cell(""), Cell("")
        if found is not None and (found[1] / "cases.csv").is_file():
            table = read_table(found[1] / "cases.csv")
            value, count = network_dice(table), int(table["case"].nunique())
            dice, cases = Cell(fixed(value, 3), value), Cell(str(count), count)
        title = str(each["title"])
        for name, text in NETWORK_TITLES.items():
            title = title.replace(name, text)
        rows.append((Cell(title, title), Cell(str(each["state"]), str(each["state"])), dice, cases))
    columns = (
        Column("Training", number=False),
        Column("State", number=False),
        Column("Average Dice"),
        Column("Held-out cases"),
    )
    return Table(columns, tuple(rows))


def _pictures(stored: dict[str, Any] | None) -> list[tuple[str, float, str, str]]:
    """Title, width over height, image and labels of the training slices."""
    if stored is None:
        return []
    titles = [f"{case}, slice {number}" for case, number in zip(stored["case"], stored["slice"], strict=True)]
    return [
        (title, image.shape[1] / image.shape[0], grey(image), overlay(label))
        for title, image, label in zip(titles, stored["image"], stored["label"], strict=True)
    ]


def _charts(folder: Path, trials: dict[str, tuple[dict[str, Any], Path]]) -> list[tuple[str, Figure]]:
    """The loss of the finished trainings of each network, of the first seed and fold, and its attention."""
    plain = [(content, path) for content, path in trials.values() if not content["training"].get("nested")]
    charts: list[tuple[str, Figure]] = []
    for network in dict.fromkeys(content["network"]["name"] for content, _ in plain):
        own = [(content, path) for content, path in plain if content["network"]["name"] == network]
        run = min((content["seed"], content["fold"]) for content, _ in own)
        tables = [
            read_table(path / "history.csv").assign(blocks=content["blocks"])
            for content, path in own
            if (content["seed"], content["fold"]) == run
        ]
        title = NETWORK_TITLES.get(network, network)
        figure = loss_figure(pd.concat(tables), title)
        charts += [(title, figure)] if figure is not None else []
        attention = distance_figure(read_network(folder / "networks" / network, network))
        charts += [(title, attention)] if attention is not None else []
    return charts
