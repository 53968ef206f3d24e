"""Commands for one network: `vitrim attention`, `vitrim compress`, `vitrim evaluate`, `vitrim import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app
from vitrim.errors import InputError


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
    out: Annotated[Path, typer.Option(help="New folder for the smaller network.")],
    depth: Annotated[
        str | None, typer.Option(metavar="K|auto", help="Transformer blocks to keep; auto has them decided on --data.")
    ] = None,
    decision: Annotated[Path | None, typer.Option(help="decision.json that says how many.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set, to decide and to train on.")] = None,
    tolerance: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Decide by accuracy: the Dice that may be lost, such as 1%.")
    ] = None,
    recover: Annotated[str, typer.Option(metavar="none|finetune|distil", help="How to train on.")] = "none",
    epochs: Annotated[int | None, typer.Option(min=1, help="Of training on; the network's own by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, in place of epochs.")] = None,
    blocks: Annotated[
        str, typer.Option(metavar="first|influence|effect|random", help="Which blocks are kept.")
    ] = "first",
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make a network smaller: cut it to its first blocks, and train it on if that is wanted."""
    if (depth is None) == (decision is None):
        raise InputError("give either --depth or --decision")
    if depth not in (None, "auto") and not str(depth).isdigit():
        raise InputError(f"--depth is a number of blocks or auto, not {depth!r}")
    if tolerance is not None and depth != "auto":
        raise InputError("--tolerance decides the depth: give it with --depth auto")
    if epochs is not None and steps is not None:
        raise InputError("give either --epochs or --steps")
    if recover == "none" and (epochs or steps):
        raise InputError("--epochs and --steps say how long to train on: give --recover finetune or distil with them")
    choices: dict[str, tuple[str, tuple[str, ...]]] = {"--recover": (recover, ("none", "finetune", "distil"))}
    choices["--blocks"] = (blocks, ("first", "influence", "effect", "random"))
    for option, (value, known) in choices.items():
        if value not in known:
            raise InputError(f"{option} is one of {', '.join(known)}, not {value!r}")
    share = None if tolerance is None else _share(tolerance)

    from vitrim.compression import Request, compress_checkpoint
    from vitrim.config import load_study
    from vitrim.progress import Reporter

    request = Request(
        depth=None if depth in (None, "auto") else int(str(depth)),
        decision=decision,
        tolerance=share,
        method=blocks,  # type: ignore[arg-type]
        recovery=recover,  # type: ignore[arg-type]
        epochs=epochs,
        steps=steps,
        seed=seed,
    )
    layout = load_study(study).data if study else None
    reporter = Reporter()
    for line in compress_checkpoint(checkpoint, out, request, reporter, data, layout):
        reporter.say(line)


def _share(text: str) -> float:
    """A share of 1 from `1%` or `0.01`."""
    try:
        value = float(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise InputError(f"--tolerance {text} is not a share of the Dice, such as 1% or 0.01")
    return value


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network.")],
    data: Annotated[Path, typer.Option(help="Data set with labels.")],
    out: Annotated[Path, typer.Option(help="New folder for the tables.")],
    against: Annotated[Path | None, typer.Option(help="Another network, to compare with case by case.")] = None,
    cases: Annotated[
        str,
        typer.Option(
            metavar="auto|validation|train|tuning|all",
            help="Which cases; auto: those that its training held out, all where that is not known.",
        ),
    ] = "auto",
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
) -> None:
    """Dice, HD95 and surface Dice of a network, with intervals; and whether it is as good as another."""
    known = ("auto", "validation", "train", "tuning", "all")
    if cases not in known:
        raise InputError(f"--cases is one of {', '.join(known)}, not {cases!r}")

    from vitrim.assess import assess, table_lines
    from vitrim.config import load_study
    from vitrim.progress import Reporter

    layout = load_study(study).data if study else None
    reporter = Reporter()
    found = assess(checkpoint, data, out, reporter, against=against, which=cases, layout=layout)  # type: ignore[arg-type]
    for line in table_lines(found):
        reporter.say(line)
    if found.sentence:
        reporter.say(found.sentence)
    for path in sorted(out.iterdir()):
        reporter.say(f"wrote {path}")


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
    typer.echo(
        "how its images are prepared is not in the file: give it with --study, as examples/transunet-release.yaml does "
        "(CT clipped to -125 to 275 HU, 0 to 1, scaling: zoom)"
    )
    typer.echo(f"wrote {out / 'model.safetensors'}\nwrote {out / 'model.json'}")
