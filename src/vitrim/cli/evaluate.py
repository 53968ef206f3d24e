"""`vitrim evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import Model, OnDevice, app, examples, make_reporter, one_of, print_json
from vitrim.config.names import CaseGroup


@app.command(epilog=examples("vitrim evaluate small --against trained --data runs/demo/data -o out"))
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network; with --model also a file of weights.")],
    data: Annotated[Path, typer.Option(help="Data set with labels.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the tables.")],
    model: Model = None,
    device: OnDevice = "auto",
    against: Annotated[Path | None, typer.Option(help="Another network, to compare with case by case.")] = None,
    cases: Annotated[
        CaseGroup,
        typer.Option(
            metavar="GROUP",
            help=f"Which cases: {one_of(CaseGroup)}. auto: those that its training held out, or all if not known.",
        ),
    ] = "auto",
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the summary and the comparison as JSON.")] = False,
) -> None:
    """Dice, HD95 and surface Dice of a network, with intervals; and whether it is as good as another."""
    from vitrim.commands.evaluate import evaluate

    reporter = make_reporter(json=json)
    found = evaluate(
        checkpoint, data, out, model=model, device=device, against=against, cases=cases, study=study, reporter=reporter
    )
    if json:
        print_json(found.as_json())
        return
    for line in found.lines():
        reporter.say(line)
    for path in sorted(out.iterdir()):
        reporter.say(f"wrote {path}")
