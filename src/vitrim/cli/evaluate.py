"""`vitrim evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app
from vitrim.config.names import CaseGroup


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network.")],
    data: Annotated[Path, typer.Option(help="Data set with labels.")],
    out: Annotated[Path, typer.Option(help="New folder for the tables.")],
    against: Annotated[Path | None, typer.Option(help="Another network, to compare with case by case.")] = None,
    cases: Annotated[
        CaseGroup, typer.Option(help="Which cases; auto: those that its training held out, or all if not known.")
    ] = "auto",
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
) -> None:
    """Dice, HD95 and surface Dice of a network, with intervals; and whether it is as good as another."""
    from vitrim.commands.evaluate import evaluate
    from vitrim.progress import Reporter

    reporter = Reporter()
    found = evaluate(checkpoint, data, out, against=against, cases=cases, study=study, reporter=reporter)
    for line in found.lines():
        reporter.say(line)
    for path in sorted(out.iterdir()):
        reporter.say(f"wrote {path}")
