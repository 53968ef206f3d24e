"""Writes label maps as DICOM SEG with highdicom, which is loaded only when one is written or read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vitrim import __version__
from vitrim.data.dicom import headers_in_order
from vitrim.errors import DataError, InputError
from vitrim.files import replacing
from vitrim.inference.structure_codes import structure_code

MADE_BY = "vitrim"
"""Manufacturer and algorithm in the header, and name of the parameter that holds the provenance."""

NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
"""What a SEG says of the images that it refers to."""

MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
"""What a SEG copies from them; some programs leave it out."""

SERIES = 1000
"""Added to the number of the series, for the number of the SEG's own."""

MOST = 10**9
"""Largest number of a series to which this is added; DICOM takes 32 bits."""


def require_highdicom(what: str) -> Any:
    """Return the module highdicom. Raises InputError that says how to install it, for `what` to be written."""
    try:
        import highdicom
    except ImportError as error:
        raise InputError(f"{what} needs highdicom: pip install 'vitrim[formats]'") from error
    return highdicom


def seg_sources(path: Path) -> list[Any]:
    """Return the headers of the DICOM series for which `path` stands, in the order of their slices.

    Raises DataError if one lacks what a SEG refers to.
    """
    headers = headers_in_order(path)
    for file, header in headers:
        missing = next((tag for tag in NEEDED if not header.get(tag)), None)
        if missing is not None:
            raise DataError(f"{file} has no {missing}, to which a DICOM SEG refers")
        for tag in MAY_BE_EMPTY:
            if tag not in header:
                setattr(header, tag, None)
        if header.PatientSex not in ("M", "F", "O"):
            header.PatientSex = ""
    return [header for _, header in headers]


def write_dicom_seg(
    path: Path, labels: np.ndarray, sources: list[Any], classes: dict[int, str], origin: dict[str, str]
) -> None:
    """Write labels (X, Y, Z), uint8, on the grid of `sources` (from `seg_sources`) as a binary DICOM SEG.

    Each class has one segment, whose number is its label. Frames without a voxel are left out, unless all are. The
    file refers to each slice, and holds `origin` as a parameter of the algorithm.

    Raises InputError if highdicom is missing or refuses the headers, and OSError if the file cannot be written.
    """
    highdicom = require_highdicom(f"writing {path}")
    try:
        content = _segmentation(highdicom, labels, sources, classes, origin)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    with replacing(path) as temporary:
        content.save_as(temporary)


def read_seg_origin(path: Path) -> dict[str, str] | None:
    """Return the provenance in a SEG that `write_dicom_seg` wrote. Raises an error of any kind for another file."""
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"])
    algorithm = header.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    text = str(algorithm.AlgorithmParameters)
    return json.loads(text.removeprefix(f"{MADE_BY}=")) if algorithm.AlgorithmName == MADE_BY else None


def _segmentation(
    highdicom: Any, labels: np.ndarray, sources: list[Any], classes: dict[int, str], origin: dict[str, str]
) -> Any:
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MADE_BY,
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters={MADE_BY: json.dumps(origin, sort_keys=True)},
    )
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(labels.transpose(2, 1, 0)),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(highdicom, n, name, algorithm) for n, name in sorted(classes.items()) if n],
        series_instance_uid=highdicom.UID(),
        series_number=min(max(int(sources[0].get("SeriesNumber") or 0), 0), MOST) + SERIES,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MADE_BY,
        manufacturer_model_name=MADE_BY,
        software_versions=__version__,
        device_serial_number=origin["network"][:16],
        content_label="SEGMENTATION",
        omit_empty_frames=bool(labels.any()),
        series_description="Segmentation by vitrim",
    )


def _segment(highdicom: Any, label: int, name: str, algorithm: Any) -> Any:
    code = structure_code(label, name)
    segment = highdicom.seg.SegmentDescription(
        segment_number=label,
        segment_label=name[:64],
        segmented_property_category=code.category,
        segmented_property_type=code.concept,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if code.side is not None:
        side = highdicom.sr.CodedConcept.from_code(code.side)
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return segment
