"""`vitrim study` and `vitrim report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app


@app.command()
def study(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A preset, such as demo, or your own study.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the study's own.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="What networks start from: scratch, pretrained (timm's hub), or a local file or folder of weights."
        ),
    ] = None,
) -> None:
    """Train, look at the attention, cut, compare: the paper's experiment, whole."""
    from vitrim.config import load_study

    config = load_study(source)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    if init is not None:
        start = {"scratch": False, "pretrained": True}.get(init, init)
        config = config.model_copy(update={"pretrained": start})
    folder = out or Path("runs") / config.name

    from vitrim.progress import Reporter
    from vitrim.report.build import write_report
    from vitrim.study.runner import run_study

    reporter = Reporter()
    run_study(config, data, folder, reporter)
    written = write_report(folder)
    reporter.say("")
    reporter.say((folder / "report.md").read_text(encoding="utf-8").split("\n\n## ")[0].strip())
    reporter.say("")
    for path in [*written, folder / "results.csv"]:
        reporter.say(f"wrote {path}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a study, such as runs/demo.")]) -> None:
    """Write report.md and report.html again from the stored results."""
    from vitrim.report.build import write_report

    for path in write_report(run):
        typer.echo(f"wrote {path}")
