"""`vitrim report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples, make_reporter


@app.command(epilog=examples("vitrim report runs/demo", "vitrim report runs/ibsr18 runs/emidec -o comparison"))
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of studies, such as runs/demo.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the comparison of several studies; comparison by default."),
    ] = None,
    all_figures: Annotated[
        bool, typer.Option("--all-figures", help="Draw the figures of every seed and fold, not only of the first.")
    ] = False,
) -> None:
    """Compute the statistics once more from the stored per-case tables, and write figures and report again.

    Several studies are compared in one page and one LaTeX table.
    """
    from vitrim.commands.report import write_report

    for path in write_report(*runs, out=out, all_figures=all_figures, reporter=make_reporter()):
        typer.echo(f"wrote {path}")
