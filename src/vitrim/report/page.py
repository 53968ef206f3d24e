"""report.html: one file that needs nothing else."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape
from markupsafe import Markup

from vitrim.report.answers import Answer
from vitrim.report.figures import measure_figures, mosaics, slices, training_figure
from vitrim.report.numbers import fixed
from vitrim.report.pictures import class_colour, colour_bar, grey
from vitrim.report.run import Run
from vitrim.report.tables import results_table
from vitrim.report.words import rule, setting


def asset(name: str) -> str:
    """Text of a file in `assets/`."""
    return (resources.files("vitrim.report") / "assets" / name).read_text(encoding="utf-8")


def page(run: Run, answers: list[Answer]) -> str:
    """The whole of report.html."""
    environment = Environment(
        loader=DictLoader({"page.html": asset("page.html")}),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = fixed
    return environment.get_template("page.html").render(
        style=Markup(asset("page.css")),
        script=Markup(asset("page.js")),
        run=run,
        setting=setting(run),
        answers=answers,
        table=results_table(run),
        networks=[_network(run, answer) for answer in answers],
        slices=slices(run),
        legend=[(name, class_colour(index)) for index, name in enumerate(run.classes, start=1)],
        colour_bar=colour_bar(),
    )


def _network(run: Run, answer: Answer) -> dict[str, Any]:
    network = answer.network
    return {
        "name": network.name,
        "title": network.title,
        "answer": answer,
        "rule": rule(answer.decision) if answer.decision is not None else "",
        "figures": measure_figures(network),
        "maps": network.maps,
        "image": grey(network.maps.image) if network.maps is not None else "",
        "mosaics": mosaics(network),
        "training": training_figure(run, network),
        "depths": sorted({int(blocks) for blocks in run.rows(network.name)["blocks"]}, reverse=True),
    }
