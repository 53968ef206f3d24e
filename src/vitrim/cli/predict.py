"""`vitrim predict` and `vitrim export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import app

STUDY = "Study whose data section says how to prepare the images, where the checkpoint does not."


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network, or a file of `vitrim export`.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="NIfTI file, or folder of them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="NIfTI file, or folder.")],
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probabilities.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Also write volumes.csv: ml of each structure.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Also draw a picture of each case.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Slices computed at a time.")] = 8,
    precision: Annotated[
        str,
        typer.Option(help="auto, float32, bf16, or int8: faster on processors without bf16, labels nearly the same."),
    ] = "auto",
    study: Annotated[str | None, typer.Option(help=STUDY)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Segment NIfTI volumes; each label map lies on its image's own grid. Goes on where it was stopped."""
    from vitrim.config import load_study

    data = load_study(study).data if study else None

    from vitrim.inference.files import predict_files
    from vitrim.progress import Reporter

    if preview:
        from vitrim.report.preview import write_preview

    predict_files(
        checkpoint,
        source,
        out,
        Reporter(),
        study=data,
        batch_size=batch,
        precision=precision,
        probabilities=probabilities,
        volumes=labels,
        draw=write_preview if preview else None,
        overwrite=overwrite,
    )


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a network.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    data: Annotated[Path | None, typer.Option(help="NIfTI file or folder of them, to check the file on.")] = None,
    study: Annotated[str | None, typer.Option(help=STUDY)] = None,
    int8: Annotated[bool, typer.Option("--int8", help="The transformer in 8-bit integers; needs --data.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a network as ONNX, with all that `vitrim predict` needs to know, and check it against torch."""
    from vitrim.config import load_study

    layout = load_study(study).data if study else None

    from vitrim.export import OPSET, export_onnx

    checks = export_onnx(checkpoint, out, study=layout, data=data, int8=int8, overwrite=overwrite)
    for what, check in checks.items():
        agreement = f"logits within {check.error:.1e} of torch's, {check.agreement:.3%} of labels equal"
        typer.echo(f"checked on {what} ({check.slices}): {agreement}")
    typer.echo(f"wrote {out} (opset {OPSET}, {out.stat().st_size / 1e6:.1f} MB)")
