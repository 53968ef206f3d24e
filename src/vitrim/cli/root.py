"""The application itself: its name, its two options, and how it ends."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from vitrim import __version__
from vitrim.errors import InputError

UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
"""What typer raises for options that are impossible, unknown or missing; it has no public name."""

INTERRUPTED = 130
"""Exit status where the user stopped a command."""

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
        status = app(arguments, standalone_mode=False)
    except InputError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"vitrim: {error}", err=True)
        sys.exit(2)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
        else:
            typer.echo(f"vitrim: {_one_line(error)}", err=True)
        sys.exit(2)
    except typer.Abort:
        sys.exit(1)
    if isinstance(status, int):
        sys.exit(status)


def _one_line(error: BaseException) -> str:
    """A usage error in one line, with the nearest choice where the value is none of several."""
    from vitrim.config.reading import suggestion

    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    choice = re.search(r"Invalid value for '([^']*)'.*?'([^']*)' is not one of (.*)", message)
    if choice is None:
        return message
    known = re.findall(r"'([^']*)'", choice[3])
    return f"{choice[1]}: {choice[2]!r} is unknown{suggestion(choice[2], known)}; choose from {', '.join(known)}"
