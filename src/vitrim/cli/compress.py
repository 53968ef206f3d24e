"""`vitrim compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vitrim.cli.root import Model, OnDevice, app, examples, make_reporter, one_of, print_json
from vitrim.config.names import Criterion, DecoderForm, Recovery
from vitrim.errors import ConfigurationError


@app.command(
    epilog=examples(
        "vitrim compress trained --depth auto --data runs/demo/data -o small",
        "vitrim compress trained --depth 3 -o small",
        "vitrim compress unetr.pth --model unetr.py:build --depth 3 -o small",
    )
)
def compress(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network; with --model also a file of weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the smaller network.")],
    model: Model = None,
    device: OnDevice = "auto",
    depth: Annotated[
        str | None, typer.Option(metavar="K|auto", help="Transformer blocks to keep; auto has them decided on --data.")
    ] = None,
    decision: Annotated[Path | None, typer.Option(help="decision.json that says how many.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set, to decide and to train on.")] = None,
    tolerance: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Decide by accuracy: the Dice that may be lost, such as 1%.")
    ] = None,
    recover: Annotated[
        Recovery | None,
        typer.Option(help="How to train on; finetune by default where the depth is decided, else none."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of training on; the network's own by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, in place of epochs.")] = None,
    blocks: Annotated[
        Criterion, typer.Option(metavar="NAME", help=f"Which blocks are kept: {one_of(Criterion)}.")
    ] = "first",
    decoder: Annotated[
        DecoderForm | None, typer.Option(help="Decoder of 2D UNETR and 2D CATS: as in the paper, or whole.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choices and of training on.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, as in compression.json.")] = False,
) -> None:
    """Make a network smaller: keep its first blocks, and train it on if that is wanted."""
    wanted, share = _depth(depth), _share(tolerance)

    from vitrim.commands.compress import compress

    reporter = make_reporter(json=json)
    result = compress(
        checkpoint,
        out,
        model=model,
        device=device,
        depth=wanted,
        decision=decision,
        data=data,
        tolerance=share,
        recover=recover,
        epochs=epochs,
        steps=steps,
        blocks=blocks,
        decoder=decoder,
        study=study,
        seed=seed,
        reporter=reporter,
    )
    if json:
        print_json(result.summary)
        return
    for line in result.lines:
        reporter.say(line)


def _depth(text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == "auto":
        return None if text is None else "auto"
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"--depth is a number of blocks or auto, not {text!r}")
    return int(text)


def _share(text: str | None) -> float | None:
    """A share of 1 from `1%` or `0.01`."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%").strip()) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ConfigurationError(f"--tolerance {text} is not a share of the Dice, such as 1% or 0.01")
    return value
