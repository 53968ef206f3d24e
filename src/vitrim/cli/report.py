"""`vitrim report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples, make_reporter


@app.command(epilog=examples("vitrim report runs/demo"))
def report(run: Annotated[Path, typer.Argument(help="Folder of a study, such as runs/demo.")]) -> None:
    """Compute the statistics once more from the stored per-case table, and write figures and report again."""
    from vitrim.commands.report import write_report

    for path in write_report(run, reporter=make_reporter()):
        typer.echo(f"wrote {path}")
