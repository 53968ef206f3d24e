"""`vitrim import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vitrim.cli.root import app, examples


@app.command("import", epilog=examples("vitrim import transunet epoch_149.pth imported"))
def import_transunet(
    kind: Annotated[Literal["transunet"], typer.Argument(help="Whose checkpoint it is.")],
    checkpoint: Annotated[Path, typer.Argument(help="File saved by the public TransUNet code.")],
    out: Annotated[Path, typer.Argument(help="New folder for the network.")],
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images; one is repeated to three.")] = 1,
    study: Annotated[
        str | None, typer.Option(help="Study whose data section says how images are prepared; stored with the network.")
    ] = None,
) -> None:
    """Read a checkpoint of the public TransUNet code; `vitrim.load_model(OUT)` gives it back."""
    from vitrim.commands.import_transunet import import_transunet

    config = import_transunet(checkpoint, out, channels=channels, study=study).config
    typer.echo(f"TransUNet, {config.depth} blocks, {config.num_classes} classes, images of {config.image_size}")
    if study is None:
        typer.echo(
            "the file does not say how its images are prepared: give that with --study, here or later, as "
            "examples/transunet-release.yaml does (CT clipped to -125 to 275 HU, 0 to 1, scaling: zoom)"
        )
    typer.echo(f"wrote {out / 'model.safetensors'}\nwrote {out / 'model.json'}")
