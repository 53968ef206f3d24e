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
def attention(
    source: Annotated[
        str, typer.Argument(metavar="CHECKPOINT|timm:NAME", help="Folder of a network, or a timm model.")
    ],
    data: Annotated[Path, typer.Option(help="Data set (for a checkpoint) or folder of pictures (for timm).")],
    out: Annotated[Path, typer.Option(help="New folder for the results.")],
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
    weights: Annotated[str | None, typer.Option(help="timm: a file of weights, or none; the hub by default.")] = None,
    measure: Annotated[str, typer.Option(help="Measure that decides.")] = "globality",
    head: Annotated[str, typer.Option(help="Heads averaged (mean), or the most global head (max).")] = "mean",
    threshold: Annotated[float, typer.Option(min=0, help="A block that reaches this is global.")] = 2 / 3,
    cases: Annotated[int | None, typer.Option(min=1, help="Cases to look at; all by default.")] = None,
    slices: Annotated[int | None, typer.Option(min=1, help="Slices of each case; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the untrained network and of the bootstrap.")] = 0,
    html: Annotated[bool, typer.Option("--html", help="Also write explorer.html.")] = False,
) -> None:
    """Measure where each block of one network looks, and decide how many blocks it needs."""
    from pydantic import ValidationError

    from vitrim.config import AttentionConfig, explain, load_study

    options = {"measure": measure, "head": head, "threshold": threshold, "cases": cases, "slices": slices}
    try:
        config = AttentionConfig.model_validate(options)
    except ValidationError as error:
        raise InputError(explain(error)) from error
    layout = load_study(study).data if study else None

    from vitrim.examine import examine, explorer_images
    from vitrim.progress import Reporter

    reporter = Reporter()
    subject, gallery, decision = examine(source, data, out, config, reporter, layout=layout, weights=weights, seed=seed)
    reporter.say(decision.sentence())
    if html:
        from vitrim.report.single import write_explorer_page

        write_explorer_page(out, subject.name, subject.network, len(decision.blocks), *explorer_images(gallery))
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        reporter.say(f"wrote {path}")


@app.command()
def compress(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network.")],
    out: Annotated[Path, typer.Option(help="New folder for the truncated network.")],
    depth: Annotated[int | None, typer.Option(min=0, help="Transformer blocks to keep.")] = None,
    decision: Annotated[Path | None, typer.Option(help="decision.json that says how many to keep.")] = None,
) -> None:
    """Truncate a network to its first blocks; what survives keeps its weights, to be trained on."""
    if (depth is None) == (decision is None):
        raise InputError("give either --depth or --decision")
    from vitrim.compress import compress_checkpoint

    for line in compress_checkpoint(checkpoint, out, depth, decision):
        typer.echo(line)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(metavar="transunet", help="Whose checkpoint it is.")],
    checkpoint: Annotated[Path, typer.Argument(help="File saved by the public TransUNet code.")],
    out: Annotated[Path, typer.Argument(help="New folder for the network.")],
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images; one is repeated to three.")] = 1,
) -> None:
    """Read a checkpoint of the public TransUNet code; `vitrim.load_model(OUT)` gives it back."""
    if kind != "transunet":
        raise InputError(f"cannot import {kind!r}: only transunet checkpoints can be imported")
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder")
    from vitrim.models.transunet_release import import_transunet

    network = import_transunet(checkpoint, out, in_chans=channels)
    config = network.config
    typer.echo(f"TransUNet, {config.depth} blocks, {config.num_classes} classes, images of {config.image_size}")
    typer.echo(f"wrote {out / 'model.safetensors'}\nwrote {out / 'model.json'}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a study, such as runs/demo.")]) -> None:
    """Write report.md and report.html again from the stored results."""
    from vitrim.report.build import write_report

    for path in write_report(run):
        typer.echo(f"wrote {path}")


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
    from vitrim.config import DataConfig, load_study

    config = DataConfig() if layout == "decathlon" else load_study(layout).data

    from vitrim.data.check import check_cases
    from vitrim.data.readers import read_cases
    from vitrim.progress import Reporter

    reporter = Reporter()
    cases = read_cases(config, folder, strict=False)
    with reporter.stage(f"check {len(cases.cases)} cases", len(cases.cases)) as stage:
        findings = check_cases(cases, config, progress=lambda done, total: stage.advance())
    for line in findings.summary():
        reporter.say(line)
    for kind, lines in (("error", findings.errors), ("warning", findings.warnings)):
        for line in lines:
            reporter.say(f"{kind}: {line}")
    findings.save(out)
    reporter.say(f"wrote {out}")
    if findings.errors:
        count = len(findings.errors)
        raise InputError(f"{folder}: {count} problem{'s' if count != 1 else ''} that a study would stop at")
    reporter.say("no problem that a study would stop at")


@data_app.command("phantom")
def data_phantom(
    kind: Annotated[str, typer.Argument(metavar="brain|cardiac|abdomen|longrange", help="What to imitate.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the data set.")],
    layout: Annotated[str, typer.Option(help="decathlon, ibsr18, emidec, synapse or synapse-raw.")] = "decathlon",
    cases: Annotated[int, typer.Option(min=2, help="Number of cases.")] = 10,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    hops: Annotated[int, typer.Option(min=1, help="longrange: marks to follow to an object's class.")] = 1,
    noise: Annotated[float, typer.Option(min=0, help="Factor on the noise.")] = 1.0,
    bias_field: Annotated[float, typer.Option(min=0, help="How much brighter one side is; 0.3 is usual in MRI.")] = 0.0,
    spacing: Annotated[tuple[float, float, float] | None, typer.Option(help="Voxel size in mm.")] = None,
    orientation: Annotated[str, typer.Option(help="How the arrays run, such as RAS or LPS.")] = "RAS",
) -> None:
    """Write a seeded phantom data set."""
    from pydantic import ValidationError

    from vitrim.config import PhantomConfig, explain

    options = {"kind": kind, "cases": cases, "seed": seed, "hops": hops, "noise": noise, "bias_field": bias_field}
    try:
        config = PhantomConfig.model_validate({**options, "spacing": spacing, "orientation": orientation})
    except ValidationError as error:
        raise InputError(explain(error)) from error

    from vitrim.data.phantom import make_phantom
    from vitrim.progress import Reporter

    reporter = Reporter()
    with reporter.stage(f"draw {cases} cases", cases) as stage:
        make_phantom(config, folder, layout, progress=lambda done, total: stage.advance())
    reporter.say(f"wrote {folder}")


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
