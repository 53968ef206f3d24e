"""Commands for one network: `vitrim attention`, `vitrim compress`, `vitrim import`."""

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
