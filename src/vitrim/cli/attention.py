"""`vitrim attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import Model, OnDevice, app, examples, make_reporter, one_of
from vitrim.config.names import DecidingMeasure, Head


def _number(text: str) -> float:
    """A decimal number or a fraction. Not `fractions.Fraction`, which takes endless time for 1e999999999."""
    number, slash, divisor = str(text).partition("/")
    try:
        return float(number) / (float(divisor) if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is not a number, such as 0.5 or 2/3") from None


@app.command(epilog=examples("vitrim attention trained --data runs/demo/data -o attention"))
def attention(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|timm:NAME",
            help="Folder of a network (with --model also a file), or a timm model.",
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set (for a checkpoint) or folder of pictures (for timm).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the results.")],
    model: Model = None,
    device: OnDevice = "auto",
    study: Annotated[str | None, typer.Option(help="Study whose data section says how to prepare the data.")] = None,
    weights: Annotated[str | None, typer.Option(help="timm: a file of weights, or none; the hub by default.")] = None,
    measure: Annotated[
        DecidingMeasure,
        typer.Option(metavar="NAME", help=f"Measure that decides: {one_of(DecidingMeasure)}."),
    ] = "globality",
    head: Annotated[Head, typer.Option(help="Heads averaged (mean), or the most global head (max).")] = "mean",
    threshold: Annotated[
        float,
        typer.Option(
            parser=_number, metavar="NUMBER", show_default=False, help="A block that reaches this is global; 2/3."
        ),
    ] = 2 / 3,
    cases: Annotated[int | None, typer.Option(min=1, help="Number of cases; all by default.")] = None,
    slices: Annotated[int | None, typer.Option(min=1, help="Slices of each case; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the untrained network and of the bootstrap.")] = 0,
    html: Annotated[bool, typer.Option("--html", help="Also write explorer.html.")] = False,
) -> None:
    """Measure where each block of one network attends, and what it loses without exchange between patches."""
    from vitrim.commands.attention import analyse_attention

    reporter = make_reporter()
    result = analyse_attention(
        source,
        data,
        out,
        model=model,
        device=device,
        study=study,
        weights=weights,
        measure=measure,
        head=head,
        threshold=threshold,
        cases=cases,
        slices=slices,
        seed=seed,
        html=html,
        reporter=reporter,
    )
    for line in result.lines():
        reporter.say(line)
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        reporter.say(f"wrote {path}")
