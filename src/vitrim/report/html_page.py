"""report.html, and a page with the attention explorer only. Each is one self-contained file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from vitrim.attention.colour_scale import TIMES_UNIFORM
from vitrim.errors import InputError
from vitrim.files import write_text
from vitrim.metrics.statistics import FIRM_CASES, FIRM_SEEDS
from vitrim.report.answers import Answer, shared_notes
from vitrim.report.change_strip import change_strips
from vitrim.report.charts import (
    block_figure,
    distance_figure,
    exchange_figure,
    measure_figures,
    slider,
    training_figure,
    uniform_blocks,
)
from vitrim.report.depth_chart import depth_figure
from vitrim.report.explorer import Embedded, embed, read_explorer
from vitrim.report.formatting import unbroken
from vitrim.report.gallery import changes, galleries, mosaics
from vitrim.report.images import (
    EXTRA,
    MISSED,
    OUTLINES,
    PALETTE,
    WRONG_CLASS,
    class_colour,
    colour_bar,
    grey,
    ramp,
)
from vitrim.report.paper import CITATION, comparison
from vitrim.report.rule_comparison import rules_table
from vitrim.report.run import Run
from vitrim.report.sentences import explain_flags, rule, setting
from vitrim.report.several_runs import NamedRun, answers_table, data_tables
from vitrim.report.study_table import page_tables

PAPER_BLOCKS = (1, 2, 3, 6)
"""Blocks shown in figures 4 and 5 of the paper."""

LIMIT = 14_500_000
"""Largest size of a page in bytes, small enough for an e-mail. The attention of the explorer fills the rest of it."""

SCRIPTS = 45_000
"""Bytes reserved for the scripts and controls of the explorer, which only a page with an explorer contains."""


def asset(name: str) -> str:
    """Return the text of a file in `assets/`."""
    return (resources.files("vitrim.report") / "assets" / name).read_text(encoding="utf-8")


def page(run: Run, answers: list[Answer]) -> str:
    """Return the text of report.html."""
    decided = {answer.network.name: answer.depth for answer in answers if answer.depth is not None}
    overview, details = page_tables(run)
    context = {
        "run": run,
        "setting": setting(run),
        "answers": answers,
        "strips": change_strips(answers),
        "shared": shared_notes(answers),
        "firm": (FIRM_CASES, FIRM_SEEDS),
        "table": overview,
        "details": details,
        "paper": comparison(run),
        "rules": rules_table(run),
        "networks": [_network(run, answer) for answer in answers],
        "galleries": galleries(run),
        "differing": run.examples is not None and run.examples.networks is not None,
        "outline_colours": list(zip(("full network", "truncated network", "reference"), OUTLINES, strict=True)),
        "error_colours": [("missed", MISSED), ("not in the reference", EXTRA), ("another class", WRONG_CLASS)],
        "changes": changes(run),
        "legend": [(name, class_colour(index)) for index, name in enumerate(run.classes, start=1)],
        "decided": decided,
        "citation": CITATION,
    }
    stored = [(n.name, n.title, n.folder / "explorer.npz") for n in run.networks]
    room = LIMIT - len(_render("page.html", embedded=[], **context).encode())
    return _render("page.html", embedded=_embedded(stored, run.classes, decided, room), **context)


def comparison_page(runs: Sequence[NamedRun]) -> str:
    """Return the text of a page that compares several studies."""
    figures = [
        (f"{one.label}: {network.title}", figure)
        for one in runs
        for network in one.run.networks
        if (figure := depth_figure(one.run, network)) is not None
    ]
    return _render(
        "comparison-page.html",
        embedded=[],
        runs=[(one.label, setting(one.run)) for one in runs],
        answers=answers_table(runs),
        tables=[
            (title, table, verdicts)
            for (title, table), (_, verdicts) in zip(
                data_tables(runs, "paper"), data_tables(runs, "verdicts"), strict=True
            )
        ],
        figures=figures,
        citation=CITATION,
    )


def live_page(**context: Any) -> str:
    """Return the text of the page of a study that is not finished (`vitrim.report.live`)."""
    return _render("live-page.html", embedded=[], **context)


def explorer_page(heading: str, networks: Sequence[tuple[str, Path]], classes: Sequence[str] = ()) -> str:
    """Return the text of a page with the explorer only.

    networks: title of each network and path of its `explorer.npz`.

    Raises InputError if such a file is missing, is not a file of `vitrim.studies.snapshots.write_explorer`, or is too
    large for a page.
    """
    for _, path in networks:
        if not path.is_file():
            raise InputError(f"{path} is missing: the explorer page needs this file")
    embedded = _embedded([(title, title, path) for title, path in networks], classes, {}, LIMIT - 100_000)
    if not embedded:
        raise InputError(
            f"the attention in {networks[0][1]} is too large for a page of {LIMIT / 1e6:g} MB: use fewer patches"
        )
    return _render("explorer-page.html", heading=heading, embedded=embedded, decided={})


def _render(name: str, **context: Any) -> str:
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    scripts = ["save.js", "page.js", "enlarge.js"]
    if context["embedded"]:
        scripts[1:1] = ["attention.js", "paint.js", "explorer.js"]
    return environment.get_template(name).render(
        style=Markup(asset("page.css")),
        script=Markup("\n".join(asset(script).replace('"use strict";\n', "") for script in scripts)),
        colours=base64.b64encode(ramp().tobytes()).decode("ascii"),
        colour_bar=colour_bar(),
        times_uniform=TIMES_UNIFORM,
        palette=PALETTE,
        mosaic_blocks=PAPER_BLOCKS,
        **context,
    )


def _embedded(
    networks: Sequence[tuple[str, str, Path]], classes: Sequence[str], decided: Mapping[str, int], room: int
) -> list[Embedded]:
    """Return the data that fit into `room` bytes of the page, with an equal share for each network."""
    found = [(name, title, stored) for name, title, path in networks if (stored := read_explorer(path)) is not None]
    parts = [
        embed(name, title, one, classes, (room - SCRIPTS) // len(found), decided.get(name))
        for name, title, one in found
    ]
    return [part for part in parts if part is not None]


def _network(run: Run, answer: Answer) -> dict[str, Any]:
    network = answer.network
    figures = [
        exchange_figure(network),
        block_figure(network),
        training_figure(run, network),
    ]
    return {
        "name": network.name,
        "title": network.title,
        "answer": answer,
        "rule": rule(network.rule) if network.rule is not None else "",
        "warnings": explain_flags(network, network.rule) if network.rule is not None else [],
        "glance": [each for each in (depth_figure(run, network), distance_figure(network)) if each is not None],
        "figures": measure_figures(network),
        "uniform": bool(uniform_blocks(network)),
        "slider": slider(run, network),
        "maps": network.maps,
        "image": grey(network.maps.image) if network.maps is not None else "",
        "mosaics": mosaics(network),
        "results": [figure for figure in figures if figure is not None],
        "depths": sorted({int(blocks) for blocks in run.rows(network.name)["blocks"]}, reverse=True),
    }


def write_explorer_page(folder: Path, title: str) -> Path:
    """Write explorer.html from the explorer.npz in `folder`; return the path of the page."""
    page = folder / "explorer.html"
    write_text(page, explorer_page(title, [(title, folder / "explorer.npz")]))
    return page
