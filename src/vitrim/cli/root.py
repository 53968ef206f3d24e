"""The application itself: its name, its two options, and how it ends."""

from __future__ import annotations

import sys
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
