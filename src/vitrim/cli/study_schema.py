"""`vitrim study schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples


@app.command("study schema", epilog=examples("vitrim study schema -o study.schema.json"))
def study_schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="A page of tables in place of the schema.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this new file.")] = None,
) -> None:
    """Print all keys of a study's file as a JSON schema, for editors."""
    from vitrim.commands.study_schema import study_schema

    text = study_schema(markdown=markdown, out=out)
    typer.echo(text if out is None else f"wrote {out}", nl=out is not None)
