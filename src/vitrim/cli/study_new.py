"""`vitrim study new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples, make_reporter
from vitrim.config.names import LayoutName


@app.command("study new", epilog=examples("vitrim study new --data Task04_Hippocampus -o hippocampus.yaml"))
def study_new(
    data: Annotated[Path, typer.Option(help="Folder with the data set.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.yaml", help="The new file; DATA.yaml here by default."),
    ] = None,
    layout: Annotated[LayoutName | None, typer.Option(help="How the files lie; found by default.")] = None,
) -> None:
    """Look at a data set, and write a study that fits it and this machine, with comments.

    An existing file is never overwritten.
    """
    from vitrim.commands.study_new import study_new
    from vitrim.studies.proposal import in_yaml

    reporter = make_reporter()
    new = study_new(data, out, layout=layout, reporter=reporter)
    for line in new.facts:
        reporter.say(line)
    reporter.say("assumed:")
    for choice in new.choices:
        reporter.say(f"  {choice.key}: {in_yaml(choice.value)}" + (f"  ({choice.why})" if choice.why else ""))
    for line in new.errors:
        reporter.say(f"would stop the study: {line}")
    for line in new.warnings:
        reporter.say(f"note: {line}")
    reporter.say(f"wrote {new.path}; to run it: {new.command}")
