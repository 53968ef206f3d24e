"""`vitrim data check` and `vitrim data phantom`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app, examples, make_reporter, one_of, print_json
from vitrim.config.names import LayoutName, PhantomLayout, PhantomName
from vitrim.errors import DataError

data_app = typer.Typer(help="Check a data set, or make a phantom of one.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("check", epilog=examples("vitrim data check decathlon phantom"))
def data_check(
    layout: Annotated[str, typer.Argument(metavar="LAYOUT|STUDY", help=f"{one_of(LayoutName)}; or a study.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the data set.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Also write what was found to this file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Read a data set once and say what it holds, and everything that is wrong with it."""
    from vitrim.commands.data import check_data

    reporter = make_reporter(json=json)
    findings = check_data(layout, folder, out=out, reporter=reporter)
    if json:
        print_json(asdict(findings))
    else:
        for line in findings.summary():
            reporter.say(line)
        if findings.split is not None:
            reporter.say(f"split        {findings.split}")
        for kind, lines in (("error", findings.errors), ("warning", findings.warnings)):
            for line in lines:
                reporter.say(f"{kind}: {line}")
    if out is not None:
        reporter.say(f"wrote {out}")
    if findings.errors:
        count = len(findings.errors)
        raise DataError(f"{folder}: {count} problem{'s' if count != 1 else ''} that would stop a study")
    reporter.say("no problem that would stop a study" if findings.divided else "no problem in the cases themselves")


@data_app.command("phantom", epilog=examples("vitrim data phantom abdomen -o phantom --cases 30"))
def data_phantom(
    kind: Annotated[PhantomName, typer.Argument(metavar="KIND", help=f"What to imitate: {one_of(PhantomName)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the data set.")],
    layout: Annotated[
        PhantomLayout, typer.Option(metavar="LAYOUT", help=f"How it is written: {one_of(PhantomLayout)}.")
    ] = "decathlon",
    cases: Annotated[int, typer.Option(min=2, help="Number of cases.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    hops: Annotated[int, typer.Option(min=1, help="longrange: marks to follow to a class; chain: links.")] = 1,
    places: Annotated[
        int | None,
        typer.Option(min=4, help="longrange: places for objects and marks (12); chain: patches in use (16)."),
    ] = None,
    balanced: Annotated[
        bool, typer.Option(help="longrange, chain: as many of one class as of the other in a scene.")
    ] = True,
    noise: Annotated[float, typer.Option(min=0, help="Factor on the noise.")] = 1.0,
    bias_field: Annotated[float, typer.Option(min=0, help="How much brighter one side is; 0.3 is usual in MRI.")] = 0.0,
    spacing: Annotated[tuple[float, float, float] | None, typer.Option(help="Voxel size in mm.")] = None,
    orientation: Annotated[str, typer.Option(help="How the arrays run, such as RAS or LPS.")] = "RAS",
) -> None:
    """Write a seeded phantom data set."""
    from vitrim.commands.data import make_phantom

    make_phantom(
        kind,
        out,
        layout=layout,
        cases=cases,
        seed=seed,
        hops=hops,
        places=places,
        balanced=balanced,
        noise=noise,
        bias_field=bias_field,
        spacing=spacing,
        orientation=orientation,
        reporter=make_reporter(),
    )
    typer.echo(f"wrote {out}")
