"""`vitrim export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import Model, app, examples
from vitrim.errors import InputError


@app.command(epilog=examples("vitrim export small -o small.onnx", "vitrim export small -o bundle --bundle"))
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network; with --model also a file of weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New file, NAME.onnx; with --bundle a new folder.")],
    model: Model = None,
    data: Annotated[Path | None, typer.Option(help="Volume, or folder of them, to check the file on.")] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Study whose data section says how to prepare the images, where the checkpoint does not."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="The transformer in 8-bit integers; needs --data.")] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Write a MONAI bundle, for MONAI's own runner, in place of ONNX.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a network as ONNX, with all that `vitrim predict` needs to know, and check it against torch."""
    from vitrim.commands.export import OPSET, export, export_bundle

    if bundle:
        if model or data or int8:
            raise InputError("--bundle holds a network of vitrim's as it is: leave out --model, --data and --int8")
        export_bundle(checkpoint, out, study=study, overwrite=overwrite)
        typer.echo(f"wrote {out}; run it with")
        typer.echo(
            f"  python -m monai.bundle run --config_file {out}/configs/inference.json --bundle_root {out} "
            "--dataset_dir DATA --output_dir OUT"
        )
        return
    checks = export(checkpoint, out, model=model, study=study, data=data, int8=int8, overwrite=overwrite)
    for what, check in checks.items():
        agreement = f"logits within {check.error:.1e} of torch's, {check.agreement:.3%} of labels equal"
        typer.echo(f"checked on {what} ({check.slices}): {agreement}")
    typer.echo(f"wrote {out} (opset {OPSET}, {out.stat().st_size / 1e6:.1f} MB)")
