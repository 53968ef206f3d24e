"""`vitrim train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import ForTraining, app, examples, make_reporter, stopped, with_device
from vitrim.cli.study import SOURCE, Settings
from vitrim.config.names import NetworkName


@app.command(epilog=examples("vitrim train demo --network transunet -o trained"))
def train(
    source: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help=SOURCE)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the network, with all that the other commands need.")
    ],
    network: Annotated[
        NetworkName | None, typer.Option(help="Which of the study's networks; the first by default.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Transformer blocks; all of them by default.")] = None,
    vit: Annotated[str | None, typer.Option(help="timm's name of a ViT, in place of the study's own.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the data set.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, in place of the study's own.")] = None,
    init: Annotated[str | None, typer.Option(help="Start: scratch, pretrained, or local weights.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs that share the training.")] = None,
    settings: Settings = None,
    device: ForTraining = None,
    logger: Annotated[
        str | None, typer.Option(help="Also log to tensorboard, wandb, mlflow, or another of Lightning's loggers.")
    ] = None,
) -> None:
    """Train one network of a study, and evaluate it. The same command again continues what was stopped."""
    from vitrim.commands.train import train

    try:
        result = train(
            source,
            out,
            network=network,
            depth=depth,
            vit=vit,
            data=data,
            seed=seed,
            init=init,
            devices=devices,
            settings=with_device(settings, device),
            logger=logger,
            reporter=make_reporter(),
        )
    except KeyboardInterrupt:
        raise stopped("stopped; the same command continues") from None
    typer.echo(f"average Dice {result.average_dice:.3f} on {result.cases} held-out cases")
    typer.echo(f"wrote {out}")
