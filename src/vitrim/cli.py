"""The command line: parses, calls, prints. Nothing here is slow to import, so that help is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vitrim import __version__
from vitrim.errors import InputError

app = typer.Typer(
    name="vitrim",
    help="Trim the transformer of a hybrid medical image segmentation network to the blocks that it needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vitrim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an input error.")] = False,
) -> None:
    """Trim the transformer of a hybrid medical image segmentation network to the blocks that it needs."""


@app.command()
def study(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A preset, such as demo, or your own study.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; runs/NAME by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the study's own.")] = None,
) -> None:
    """Train, look at the attention, cut, compare: the paper's experiment, whole."""
    from vitrim.config import load_study

    config = load_study(source)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
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


def main() -> None:
    """Run the command line; an input error is one line and exit status 2."""
    arguments = sys.argv[1:]
    try:
        app(arguments)
    except InputError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"vitrim: {error}", err=True)
        sys.exit(2)
