"""`vitrim predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrim.cli.root import Model, OnDevice, app, examples, make_reporter, one_of
from vitrim.config.names import Precision


@app.command(epilog=examples("vitrim predict small runs/demo/data/imagesTr -o predictions --preview"))
def predict(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Folder of a network, or an exported file; with --model also of weights."),
    ],
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Volume or picture, folder of them, or of DICOM series.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File (its ending says the format), or folder.")],
    model: Model = None,
    device: OnDevice = "auto",
    series: Annotated[
        list[str] | None,
        typer.Option(help="DICOM series to segment, where IN holds several: a name (repeatable), or all."),
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probabilities.")] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Also write volumes.csv: ml of each structure.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Also draw a picture of each case.")] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Also write a DICOM SEG of each DICOM series.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Slices in one forward pass; by default 8, on a GPU 64.")
    ] = None,
    readers: Annotated[
        int | None, typer.Option(min=1, help="Cases read at the same time; by default 1, on a GPU 8.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            metavar="NAME",
            help=f"{one_of(Precision)}. int8: faster on processors without bf16, labels nearly the same. "
            "tf32, fp16: for a GPU.",
        ),
    ] = "auto",
    study: Annotated[
        str | None,
        typer.Option(help="Study whose data section says how to prepare the images, where the checkpoint does not."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Segment volumes or pictures; each label map lies on its image's own grid. Continues what was stopped."""
    from vitrim.commands.predict import predict

    predict(
        checkpoint,
        source,
        out,
        model=model,
        device=device,
        series=series or (),
        probabilities=probabilities,
        labels=labels,
        preview=preview,
        dicom_seg=dicom_seg,
        batch=batch,
        readers=readers,
        precision=precision,
        study=study,
        overwrite=overwrite,
        reporter=make_reporter(),
    )
