"""`vitrim import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vitrim.cli.root import app, examples


@app.command("import", epilog=examples("vitrim import transunet epoch_149.pth -o imported"))
def import_transunet(
    kind: Annotated[Literal["transunet"], typer.Argument(help="Whose checkpoint it is.")],
    checkpoint: Annotated[Path, typer.Argument(help="File saved by the public TransUNet code.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the network.")],
    channels: Annotated[int, typer.Option(min=1, help="Channels of the images; one is repeated to three.")] = 1,
    study: Annotated[
        str | None,
        typer.Option(
            help="Study whose data section says how images are prepared; stored with the network. By default as the "
            "public code prepares CT."
        ),
    ] = None,
) -> None:
    """Read a checkpoint of the public TransUNet code; `vitrim.load_model` gives it back from the new folder."""
    from vitrim.commands.import_transunet import RELEASE, import_transunet
    from vitrim.data.recipe import stored_recipe

    config = import_transunet(checkpoint, out, channels=channels, study=study).config
    recipe = stored_recipe(out)
    assert recipe is not None
    typer.echo(f"TransUNet, {config.depth} blocks, {config.num_classes} classes, images of {config.image_size}")
    if study is None:
        typer.echo(
            f"note: the file does not say how its images are prepared; taken is the public code's way ({RELEASE}: CT "
            f"clipped to -125 to 275 HU, scaled to 0 to 1, zoomed). If it was trained otherwise, import it with --study"
        )
    typer.echo(f"classes: {', '.join(f'{number} {name}' for number, name in sorted(recipe.classes.items()))}")
    for path in sorted(out.iterdir()):
        typer.echo(f"wrote {path}")
