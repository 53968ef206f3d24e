"""`vitrim data check` and `vitrim data phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app
from vitrim.errors import InputError

data_app = typer.Typer(help="Check a data set, or make a phantom of one.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    layout: Annotated[
        str, typer.Argument(metavar="LAYOUT|STUDY", help="decathlon, ibsr18, emidec, synapse; or a study.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder with the data set.")],
    out: Annotated[Path, typer.Option(help="Where to write what was found, as JSON.")] = Path("data-check.json"),
) -> None:
    """Read a data set once and say what is there, and everything that is wrong with it."""
    from vitrim.config import DataConfig, load_study, presets

    asked = None if layout == "decathlon" else load_study(layout)
    config = asked.data if asked else DataConfig()

    from vitrim.data.check import check_cases
    from vitrim.data.readers import read_cases
    from vitrim.data.split import counted, study_splits
    from vitrim.progress import Reporter

    reporter = Reporter()
    cases = read_cases(config, folder, strict=False)
    with reporter.stage(f"check {len(cases.cases)} cases", len(cases.cases)) as stage:
        findings = check_cases(cases, config, progress=lambda done, total: stage.advance())
    for line in findings.summary():
        reporter.say(line)
    divided = True
    if asked is not None:
        try:
            reporter.say(f"split        {counted(study_splits(cases, asked))}")
        except InputError as error:
            # a preset's name may stand for its layout alone; a file of one's own is meant to be run
            blamed = findings.warnings if layout in presets() else findings.errors
            blamed.append(f"the study {asked.name} cannot divide these cases: {error}")
            divided = False
    for kind, lines in (("error", findings.errors), ("warning", findings.warnings)):
        for line in lines:
            reporter.say(f"{kind}: {line}")
    findings.save(out)
    reporter.say(f"wrote {out}")
    if findings.errors:
        count = len(findings.errors)
        raise InputError(f"{folder}: {count} problem{'s' if count != 1 else ''} that a study would stop at")
    reporter.say("no problem that a study would stop at" if divided else "no problem in the cases themselves")


@data_app.command("phantom")
def data_phantom(
    kind: Annotated[str, typer.Argument(metavar="brain|cardiac|abdomen|longrange", help="What to imitate.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the data set.")],
    layout: Annotated[str, typer.Option(help="decathlon, ibsr18, emidec, synapse or synapse-raw.")] = "decathlon",
    cases: Annotated[int, typer.Option(min=2, help="Number of cases.")] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    hops: Annotated[int, typer.Option(min=1, help="longrange: marks to follow to an object's class.")] = 1,
    places: Annotated[int, typer.Option(min=4, help="longrange: places for objects and marks, an even number.")] = 12,
    balanced: Annotated[bool, typer.Option(help="longrange: as many of one class as of the other in a scene.")] = True,
    noise: Annotated[float, typer.Option(min=0, help="Factor on the noise.")] = 1.0,
    bias_field: Annotated[float, typer.Option(min=0, help="How much brighter one side is; 0.3 is usual in MRI.")] = 0.0,
    spacing: Annotated[tuple[float, float, float] | None, typer.Option(help="Voxel size in mm.")] = None,
    orientation: Annotated[str, typer.Option(help="How the arrays run, such as RAS or LPS.")] = "RAS",
) -> None:
    """Write a seeded phantom data set."""
    from pydantic import ValidationError

    from vitrim.config import PhantomConfig, explain

    options = {"kind": kind, "cases": cases, "seed": seed, "hops": hops, "places": places, "balanced": balanced}
    try:
        config = PhantomConfig.model_validate(
            {**options, "noise": noise, "bias_field": bias_field, "spacing": spacing, "orientation": orientation}
        )
    except ValidationError as error:
        raise InputError(explain(error)) from error

    from vitrim.data.phantom import make_phantom
    from vitrim.progress import Reporter

    reporter = Reporter()
    with reporter.stage(f"draw {cases} cases", cases) as stage:
        make_phantom(config, folder, layout, progress=lambda done, total: stage.advance())
    reporter.say(f"wrote {folder}")
