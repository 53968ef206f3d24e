"""Check a data set before training: describe each case and list all problems."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.intensity_scale import PLAIN, Scale, said_scales, scale_text
from vitrim.data.preprocessing import PreparedCase, Preprocessing
from vitrim.data.readers import LAYOUTS
from vitrim.data.split import Split
from vitrim.data.volumes import read_volume
from vitrim.errors import DataError, InputError
from vitrim.files import parse_json, write_json
from vitrim.metrics.segmentation import dice


@dataclass
class CaseFindings:
    """The content of one case. A field is None if it could not be read."""

    case: str
    files: list[str]
    shape: list[int] | None = None
    spacing: list[float] | None = None
    orientation: str | None = None
    scale: Scale | None = None
    """How the image's header scales the stored numbers."""
    intensity: dict[str, list[float]] | None = None
    """Minimum, mean, maximum and standard deviation per channel; None if a voxel is not finite."""
    slices: int | None = None
    """Number of slices after preprocessing."""
    labelled_slices: int | None = None
    """Number of these slices that hold a foreground class."""
    voxels: dict[str, int] | None = None
    """Voxels per class, on the original grid."""
    ceiling: dict[str, float] | None = None
    """Highest Dice that preprocessing allows, per class: Dice between the reference and the reference after
    preprocessing and back."""
    content: str | None = None
    """Hash of the image voxels."""

    def __post_init__(self) -> None:
        if self.scale is not None:
            self.scale = (self.scale[0], self.scale[1])  # a list if it comes from JSON

    @classmethod
    def of(cls, case: Case) -> CaseFindings:
        """Return the findings of a case before it is read."""
        return cls(case.id, [str(path) for path in case.files])


@dataclass
class Inspection:
    """The result of reading one case: its content, its problems and, if it is usable, its voxels."""

    findings: CaseFindings
    errors: list[str]
    warnings: list[str]
    volume: Volume | None = None
    prepared: PreparedCase | None = None


def _are_findings(path: Path) -> bool:
    try:
        content = parse_json(path)
    except InputError:
        return False
    return isinstance(content, dict) and {"layout", "folder", "classes", "cases", "errors", "warnings"} <= set(content)


@dataclass
class Findings:
    """The content of a data set, and its problems."""

    layout: str
    folder: str
    classes: dict[int, str]
    cases: list[CaseFindings] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Problems that make a case or the data set unusable for a study."""
    warnings: list[str] = field(default_factory=list)
    """Observations that may be intended but that the user should know."""
    split: str | None = None
    """How a study divides the cases, as text; None if no study was given."""
    divided: bool = True
    """Whether the given study can divide the cases."""

    @classmethod
    def begin(cls, case_set: CaseSet) -> Findings:
        """Return findings without cases. The errors start with the cases that the layout's reader left out."""
        found = cls(case_set.layout, str(case_set.folder), dict(case_set.classes), errors=list(case_set.problems))
        found.warnings.extend([*case_set.notes, *case_set.unused])
        return found

    def add(self, inspection: Inspection) -> None:
        """Add the findings, errors and warnings of one case."""
        self.cases.append(inspection.findings)
        self.errors.extend(inspection.errors)
        self.warnings.extend(inspection.warnings)

    def finish(self, case_set: CaseSet) -> None:
        """Add the problems that need all cases: duplicate images, and classes that never occur."""
        self.errors.extend(_duplicates(self.cases))
        self.warnings.extend(_different_scales(self.cases))
        self.warnings.extend(_missing_classes(self, case_set))

    @property
    def problems(self) -> list[str]:
        """All errors, then all warnings."""
        return [*self.errors, *self.warnings]

    def save(self, path: Path) -> None:
        """Write the findings to `path` as JSON. Earlier findings are replaced; DataError if it is any other file."""
        if path.exists() and not _are_findings(path):
            raise DataError(f"{path} exists and holds no findings of vitrim's; choose another file with --out")
        write_json(path, asdict(self))

    def summary(self) -> list[str]:
        """Return the findings as lines of text for the user."""
        read = [case for case in self.cases if case.shape]
        planar = LAYOUTS[self.layout].planar
        lines = [f"{len(self.cases)} cases in {self.folder} ({self.layout}), {len(read)} of them read"]
        if read:
            lines.append(f"shapes       {_spread([tuple(case.shape or ())[: 2 if planar else 3] for case in read])}")
            known = [tuple(round(mm, 3) for mm in case.spacing) for case in read if case.spacing]
            if planar:
                lines.append("spacing      not known: distances are in pixels")
            else:
                lines.append(f"spacing      {_spread(known, ' mm') if known else 'not known'}")
                lines.append(f"orientation  {_spread([case.orientation or 'not known' for case in read])}")
            lines.extend(self._intensities(read))
            slices = sum(case.slices or 0 for case in read)
            labelled = sum(case.labelled_slices or 0 for case in read)
            what = "pictures " if planar else "slices   "
            lines.append(f"{what}    {slices}, {labelled} of them with a class other than the background")
        for index, name in self.classes.items():
            with_label = [case for case in read if case.voxels is not None]
            counts = [case.voxels.get(name, 0) for case in with_label if case.voxels]
            limits = [case.ceiling[name] for case in with_label if case.ceiling and name in case.ceiling]
            ceiling = f"; preprocessing limits Dice to {np.mean(limits):.3f}" if limits else ""
            present = sum(count > 0 for count in counts)
            unit = "pixels" if planar else "voxels"
            lines.append(f"class {index}: {name}, {sum(counts)} {unit} in {present} of {len(counts)} cases{ceiling}")
        return lines

    def _intensities(self, read: list[CaseFindings]) -> list[str]:
        lines = []
        for channel in dict.fromkeys(name for case in read for name in case.intensity or {}):
            values = [case.intensity[channel] for case in read if case.intensity and channel in case.intensity]
            low, mean, high, _ = np.array(values).T
            lines.append(
                f"intensity    {channel}: {low.min():g} to {high.max():g}, case means around {mean.mean():.4g}"
            )
        scales = {case.case: case.scale for case in read if case.scale}
        if any(scale != PLAIN for scale in scales.values()):
            lines.append(f"scale        {said_scales(scales)}")
        return lines


def check_cases(
    case_set: CaseSet,
    config: DataConfig,
    ids: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Read every case (or those in `ids`) once, on all cores, and list its content and its problems.

    A bad case raises no error: each of its problems is one line in `errors`. The problems that the layout's reader
    found come first. `progress` gets the number of cases done and the number of all cases.
    """
    chosen = case_set.cases if ids is None else tuple(case_set.case(id) for id in ids)
    preprocessing = Preprocessing.from_config(config)
    findings = Findings.begin(case_set)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, inspection in enumerate(pool.map(lambda case: _inspect_only(case, case_set, preprocessing), chosen)):
            findings.add(inspection)
            if progress:
                progress(done + 1, len(chosen))
    findings.finish(case_set)
    return findings


def _inspect_only(case: Case, case_set: CaseSet, preprocessing: Preprocessing) -> Inspection:
    """Inspect a case and drop its voxels, so that memory does not grow with the number of cases."""
    inspection = inspect_case(case, case_set, preprocessing)
    inspection.volume = inspection.prepared = None
    return inspection


def beside_paper(findings: Findings, split: Split) -> str | None:
    """Compare the cases and slices of a split with the paper's (3.4), in one line.

    Returns None if the paper did not use this data set.
    """
    paper = LAYOUTS[findings.layout].paper
    if paper is None:
        return None
    slices = {case.case: case.slices or 0 for case in findings.cases}
    mine = [(len(ids), sum(slices.get(id, 0) for id in ids)) for ids in (split.train, split.validation)]
    theirs = list(zip(paper.cases, paper.slices, strict=True))
    parts = [
        f"{name} {cases} cases with {count} slices (paper: {paper_cases} with {paper_count})"
        for name, (cases, count), (paper_cases, paper_count) in zip(
            ("training", "validation"), mine, theirs, strict=True
        )
    ]
    return ", ".join(parts)


def inspect_case(case: Case, case_set: CaseSet, preprocessing: Preprocessing) -> Inspection:
    """Read one case, check it and preprocess it. A bad case raises no error: its errors are listed."""
    found = CaseFindings.of(case)
    volume, errors = read_volume(case, case_set)
    warnings: list[str] = []
    if volume is None:
        return Inspection(found, errors, warnings)
    found.shape = list(volume.shape)
    if volume.spacing is not None:
        found.spacing = list(volume.spacing)
        found.orientation = "".join(nib.aff2axcodes(volume.affine))
    found.content = hashlib.blake2b(np.ascontiguousarray(volume.image).data, digest_size=16).hexdigest()
    found.scale = volume.scale
    if volume.label_scale != PLAIN:
        warnings.append(f"{case.label}: the header scales its values, {scale_text(volume.label_scale)}")
    if volume.rounded:
        warnings.append(
            f"{case.label}: label values are up to {volume.rounded:.2g} away from whole numbers and were rounded"
        )
    if volume.doubt and case_set.voxel_size is None:
        errors.append(f"{case.images[0]}: {volume.doubt}. Say which is right: data.voxel_size: sform or pixdim")
    finite = bool(np.isfinite(volume.image).all())
    if finite:
        found.intensity = {}
        constant: list[str] = []
        for name, channel in zip(case_set.channels, volume.image, strict=True):
            low, mean, high = float(channel.min()), float(channel.mean(dtype=np.float64)), float(channel.max())
            found.intensity[name] = [low, mean, high, float(channel.std(dtype=np.float64))]
            if low == high:
                constant.append(
                    f"the image of case {case.id} is constant: all voxels are {low:g} ({name}): {case.images[0]}"
                )
        # a picture may have one colour only, such as a fluorescence
        if not LAYOUTS[case_set.layout].planar or len(constant) == len(case_set.channels):
            errors.extend(constant)
    if not case.labelled:
        warnings.append(f"case {case.id} has no label: it is not used for training or evaluation")
    if volume.label is not None:
        counts = np.bincount(volume.label.ravel(), minlength=case_set.num_classes).tolist()
        found.voxels = {name: int(counts[index]) for index, name in case_set.classes.items()}
        if not any(counts[1:]):
            warnings.append(f"the label of case {case.id} holds only background")
    prepared = None
    if finite:
        prepared = preprocessing.apply(volume)
        found.slices = len(prepared.images)
        if prepared.labels is not None and volume.label is not None:
            found.labelled_slices = int(prepared.labels.any(axis=(1, 2)).sum())
            back = preprocessing.restore(prepared.labels, prepared.record)
            found.ceiling = {
                name: dice(back == index, volume.label == index)
                for index, name in case_set.classes.items()
                if index and counts[index]
            }
    return Inspection(found, errors, warnings, volume, prepared)


def _duplicates(cases: list[CaseFindings]) -> list[str]:
    """List images that occur in two cases. Such a pair could put the same image into training and validation."""
    first: dict[str, str] = {}
    lines = []
    for case in cases:
        if case.content is not None and first.setdefault(case.content, case.case) != case.case:
            lines.append(f"cases {first[case.content]} and {case.case} have the same image: keep one of them")
    return lines


def _different_scales(cases: list[CaseFindings]) -> list[str]:
    """Say in one line if the headers scale intensities differently: nothing else shows a damaged scale."""
    scales = {case.case: case.scale for case in cases if case.scale}
    return [f"the headers scale intensities differently: {said_scales(scales)}"] if len({*scales.values()}) > 1 else []


def _missing_classes(findings: Findings, case_set: CaseSet) -> list[str]:
    with_label = [case.voxels for case in findings.cases if case.voxels is not None]
    if not with_label:
        return []
    return [
        f"class {name!r} occurs in none of the {len(with_label)} labels"
        for index, name in case_set.classes.items()
        if index and not any(voxels[name] for voxels in with_label)
    ]


def _spread(values: list[Any], unit: str = "") -> str:
    """Describe values: the value if all are equal, else how many differ, the smallest and the largest."""
    kinds = sorted(set(values))
    shown = ["×".join(f"{n:g}" for n in kind) if isinstance(kind, tuple) else str(kind) for kind in kinds]
    if len(kinds) == 1:
        return shown[0] + unit
    return f"{len(kinds)} different, from {shown[0]} to {shown[-1]}{unit}"
