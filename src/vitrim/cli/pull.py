"""`vitrim pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples, make_reporter


@app.command(epilog=examples("vitrim pull OWNER/NAME -o network"))
def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository that holds a network.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the network.")],
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Commit, branch or tag; by default the newest commit.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of a network.")] = False,
) -> None:
    """Download a network from the Hugging Face hub, and open it once to check it."""
    from vitrim.commands.pull import pull

    reporter = make_reporter()
    for line in pull(repository, out, revision=revision, overwrite=overwrite, reporter=reporter).lines:
        reporter.say(line)
