"""`vitrim push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples, make_reporter


@app.command(epilog=examples("vitrim push small OWNER/NAME --private"))
def push(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Message of the commit.")] = None,
    license: Annotated[
        str | None, typer.Option(metavar="NAME", help="License of the network for its model card: apache-2.0, mit, …")
    ] = None,
    with_cases: Annotated[
        bool, typer.Option("--with-cases", help="Upload the files that name cases too: the split, results of each.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a README.md that somebody wrote or edited.")
    ] = False,
) -> None:
    """Upload a network to the Hugging Face hub, with a model card. The token is HF_TOKEN's or `hf auth login`'s."""
    from vitrim.commands.push import push

    reporter = make_reporter()
    pushed = push(
        checkpoint,
        repository,
        private=private,
        message=message,
        license=license,
        with_cases=with_cases,
        overwrite=overwrite,
        reporter=reporter,
    )
    for line in pushed.lines:
        reporter.say(line)
