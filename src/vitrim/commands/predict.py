"""`vitrim predict`: from a checkpoint and paths to files on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from vitrim.config.names import Device, Precision
from vitrim.config.reading import Study, data_section
from vitrim.data.dicom import is_dicom
from vitrim.data.formats import EXPECTED, FOREIGN, ending, format_of, is_volume, members, stem
from vitrim.data.intensity_scale import PLAIN, said_scales
from vitrim.data.itk_files import simpleitk
from vitrim.data.picture_files import is_picture
from vitrim.data.readers import LAYOUTS
from vitrim.data.recipe import recipe_for
from vitrim.errors import InputError
from vitrim.evaluation.segment import BATCH
from vitrim.files import replacing, safe_cells
from vitrim.hardware import sharing_cores
from vitrim.inference.dicom_seg import require_highdicom
from vitrim.inference.engine import open_engine
from vitrim.inference.inputs import Input, find_inputs
from vitrim.inference.outputs import is_itk
from vitrim.inference.picture_inputs import find_pictures
from vitrim.inference.predictor import Draw, Prediction, Target, check_writable, companions
from vitrim.models.user_models import ModelSource
from vitrim.progress import Reporter

MASK = ".png"
"""Ending of the mask of a picture."""

COLUMNS = ["case", "label", "structure", "voxels", "ml"]

GPU_BATCH, GPU_READERS = 64, 8
"""Slices in one forward pass, and cases that are read at the same time, on a GPU."""


@sharing_cores()
def predict(
    checkpoint: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    model: ModelSource | None = None,
    series: Sequence[str] = (),
    probabilities: bool = False,
    labels: bool = False,
    preview: bool = False,
    dicom_seg: bool = False,
    batch: int | None = None,
    readers: int | None = None,
    precision: Precision = "auto",
    device: Device = "auto",
    study: Study | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Segment volumes; each label map lies on its image's own grid, in its format. Returns the paths of the label maps.

    The same as the command `vitrim predict`. A label map that is there already is kept if this network made it from the
    same image (see `vitrim.inference.predictor`), so that the same call continues what was stopped.

    Args:
        checkpoint: folder of a network, or a file that `vitrim.export` wrote.
        source: a volume's file, a folder of them, or a folder with DICOM series; a picture or a folder of them for a
            network that was trained on pictures (see docs/predict.md).
        out: a file, whose ending says the format, or a folder.
        model: what builds the model of another library whose weights `checkpoint` holds, as in `vitrim.compress`.
        series: the DICOM series to predict, by name, if `source` holds several; `["all"]` for all of them.
        probabilities: also write `NAME_probabilities.nii.gz`.
        labels: also write `volumes.csv` (`NAME_volumes.csv` beside a single file): ml of each structure.
        preview: also draw `NAME_preview.png`.
        dicom_seg: also write `NAME_seg.dcm`, a DICOM SEG that refers to its series; only for DICOM series.
        batch: slices in one forward pass; by default 8, on a GPU 64.
        readers: cases that are read at the same time while another is computed; by default 1, on a GPU 8 (at most one
            per core).
        device: where the network runs; `auto` is a GPU if there is one.
        study: whose data section says how images are prepared, where the checkpoint does not.
        overwrite: replace label maps that were made otherwise, with all of ours that belongs to them.

    Raises:
        InputError: for anything that is wrong with these; where only some cases are, after all others are written.

    Example:
        >>> import vitrim
        >>> paths = vitrim.predict("network", "data/imagesTr", "predictions")
        >>> paths[0].name
        'case_000.nii.gz'
    """
    source, out, reporter = Path(source), Path(out), reporter or Reporter()
    draw: Draw | None = None
    if preview:
        from vitrim.report.preview import write_preview

        draw = write_preview
    section = data_section(study)
    engine = open_engine(Path(checkpoint), precision, model, section, device)
    recipe = recipe_for(Path(checkpoint), engine.recipe, section, engine.image_size, engine.num_classes)
    planar = LAYOUTS[recipe.data.layout].planar
    single = out.name.lower().endswith(MASK) if planar else is_volume(out)
    if not single and (is_volume(out) or out.name.lower().endswith(FOREIGN)) and not out.is_dir():
        named = f"{MASK} for a picture" if planar else EXPECTED
        raise InputError(
            f"no label map is written as {out.suffix}: give a folder with --out, or a name that ends in {named}"
        )
    if planar and series:
        raise InputError("--series chooses DICOM series; the network was trained on pictures")
    found = find_pictures(source) if planar else find_inputs(source, engine.channels, series)
    inputs = found.cases
    if single and source.is_dir() and (planar or len(inputs) > 1 or format_of(inputs[0].files[0]) is not None):
        raise InputError(f"{out} is the name of a file, but {source} is a folder: give a folder for the predictions")
    if out.is_dir() if single else out.is_file():
        raise InputError(f"{out} is a {'folder' if single else 'file'}; choose another place with --out")
    if dicom_seg:
        _check_series(inputs, out)
    targets = [_target(case, out if single else out / _name(case), probabilities, draw, dicom_seg) for case in inputs]
    if all(is_itk(target.labels) for target in targets):  # among others, such a case fails alone
        simpleitk(f"writing {targets[0].labels}")
    _spare_inputs(targets)
    for line in found.unused:
        reporter.say(f"note: not used: {line}")
    gpu = engine.device == "cuda"
    batch = batch or (GPU_BATCH if gpu else BATCH)
    readers = readers or (min(GPU_READERS, os.cpu_count() or 1) if gpu else 1)
    prediction = Prediction(engine, recipe, batch, draw, readers)
    folder = out.parent if single else out
    made = not folder.exists()
    check_writable(folder)
    try:
        table = folder / (f"{stem(out)}_volumes.csv" if single else "volumes.csv")
        if labels and table.exists() and not (overwrite or _is_ours(table)):
            raise InputError(f"{table} exists and is no table of vitrim's; move it, or replace it with --overwrite")
        if _is_ours(table) and (overwrite or not any(target.labels.exists() for target in targets)):
            table.unlink()  # it would tell of label maps that are replaced, or are no more
        summary = prediction.run(targets, reporter, overwrite)
        if labels and summary.volumes:
            rows = pd.DataFrame(summary.volumes, columns=COLUMNS).sort_values(["case", "label"])
            _write_table(rows, table)
            reporter.say(f"wrote {table}")
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()
    for case, doubt in summary.doubts.items():
        reporter.say(f"note: {case}: {doubt}")
    if any(scale != PLAIN for scale in summary.scales.values()):
        reporter.say(f"note: headers scale intensities: {said_scales(summary.scales)}")
    done = [target for target in targets if target.case.name not in summary.failed]
    if done:
        kept = f", {len(summary.kept)} of them kept from before" if summary.kept else ""
        reporter.say(f"wrote {out}" if single else f"wrote {out} ({len(done)} label map{_s(done)}{kept})")
    if summary.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in summary.failed.items())
        raise InputError(f"{len(summary.failed)} of {len(targets)} case{_s(targets)} failed: {reasons}")
    return [target.labels for target in targets]


def _write_table(rows: pd.DataFrame, path: Path) -> None:
    try:
        with replacing(path) as temporary:
            safe_cells(rows).to_csv(temporary, index=False, lineterminator="\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _is_ours(table: Path) -> bool:
    if not table.is_file():
        return False
    with table.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline().strip() == ",".join(COLUMNS)


def _check_series(inputs: list[Input], out: Path) -> None:
    """InputError if a case is no DICOM series, or if highdicom is missing."""
    for case in inputs:
        if not (case.files[0].is_dir() or is_dicom(case.files[0])):
            raise InputError(f"{case.files[0]} is no DICOM series, to which a DICOM SEG refers: leave out --dicom-seg")
    require_highdicom(f"writing a DICOM SEG into {out}")


def _target(case: Input, labels: Path, probabilities: bool, draw: Draw | None, dicom_seg: bool) -> Target:
    beside, preview, seg = companions(labels)
    return Target(
        case, labels, beside if probabilities else None, preview if draw else None, seg if dicom_seg else None
    )


def _name(case: Input) -> str:
    """Return the name of a case's label map: the image's format; NIfTI is compressed, and stands for DICOM.

    The mask of a picture is PNG, which loses nothing.
    """
    if is_picture(case.files[0]):
        return case.name + MASK
    own = format_of(case.files[0])
    return case.name + (".nii.gz" if own is None or own.title == "NIfTI" else ending(case.files[0]))


def _spare_inputs(targets: list[Target]) -> None:
    """InputError if a prediction would take the place of an image, or of another prediction."""
    path, times = Counter(path for target in targets for path in target.wanted).most_common(1)[0]
    if times > 1:
        raise InputError(f"two files would have the name {path}: rename one of the images")
    images = {part.resolve() for target in targets for file in target.case.files for part in members(file)}
    for target in targets:
        for path in filter(None, (*target.wanted, target.voxels)):
            if path.resolve() in images:
                raise InputError(
                    f"{path} is an image, and would be replaced by a prediction; choose another place with --out"
                )


def _s(items: list[Target]) -> str:
    return "s" if len(items) != 1 else ""
