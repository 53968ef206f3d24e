"""Predicts many cases. Reading the next case, computing one and writing the previous one run at the same time."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import vitrim
from vitrim.data.formats import data_file, members, stem
from vitrim.data.intensity_scale import Scale
from vitrim.data.preprocessing import PreparedCase, Preprocessing, restore
from vitrim.data.recipe import Recipe
from vitrim.errors import InputError
from vitrim.evaluation.segment import segment_slices
from vitrim.files import sha256
from vitrim.inference.dicom_seg import seg_sources, write_dicom_seg
from vitrim.inference.engine import Engine
from vitrim.inference.inputs import Input, Loaded, load_input
from vitrim.inference.outputs import (
    SEG,
    Origin,
    are_probabilities,
    is_our_preview,
    millilitres,
    open_labels,
    read_origin,
    write_labels,
    write_probabilities,
)
from vitrim.progress import Reporter

Draw = Callable[[Path, Loaded, np.ndarray, PreparedCase, dict[int, str]], None]
"""Function that draws a prediction (X, Y, Z) of a case into a file; see `vitrim.report.preview`."""


@dataclass(frozen=True)
class Target:
    """The output files for one case."""

    case: Input
    labels: Path
    probabilities: Path | None
    preview: Path | None
    dicom_seg: Path | None = None

    @property
    def voxels(self) -> Path | None:
        """The file of voxels beside the label map; None if its format has none."""
        return data_file(self.labels)

    @property
    def wanted(self) -> list[Path]:
        """The files to write."""
        files = (self.labels, self.probabilities, self.preview, self.dicom_seg)
        return [path for path in files if path is not None]


def companions(labels: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the probabilities, of the preview and of the DICOM SEG for a label map."""
    endings = ("_probabilities.nii.gz", "_preview.png", f"_seg{SEG}")
    probabilities, preview, dicom_seg = (labels.with_name(stem(labels) + ending) for ending in endings)
    return probabilities, preview, dicom_seg


@dataclass
class Summary:
    """Result of a run: rows (case, label, structure, voxels, ml), cases kept from before, and why cases failed."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    """Case to how its header contradicts itself, and what was taken."""
    scales: dict[str, Scale] = field(default_factory=dict)
    """Case to the scale of intensities in its header."""


class Prediction:
    """Applies one network to cases; see `run`."""

    def __init__(
        self, engine: Engine, recipe: Recipe, batch_size: int, draw: Draw | None = None, readers: int = 1
    ) -> None:
        """`readers` cases are read ahead, each by a thread of its own; as many threads write."""
        self.engine, self.recipe, self.batch_size, self.draw = engine, recipe, batch_size, draw
        self.readers = readers
        self.preparation = Preprocessing.from_config(recipe.data)
        settings = json.dumps([self.preparation.describe(), recipe.dump()["classes"]], sort_keys=True)
        self._made_by = {
            "version": vitrim.__version__,
            "network": engine.identity,
            # the scales of int8 depend on the batch
            "precision": engine.precision if engine.precision != "int8" else f"int8, {batch_size} slices at a time",
            "preparation": hashlib.sha256(settings.encode()).hexdigest(),
        }

    def run(self, targets: list[Target], reporter: Reporter, overwrite: bool = False) -> Summary:
        """Predict all `targets`. A case that cannot be read is left out; the summary gives the reason.

        Existing files with the same provenance are kept. Raises InputError, before it computes anything, if an
        existing file has another provenance, unless `overwrite`. Raises InputError if a file cannot be written.
        """
        summary = Summary()
        done = [] if overwrite else [target for target in targets if self._finished(target)]
        for target in done:
            summary.volumes += self._volumes(target.case.name, *open_labels(target.labels))
            summary.kept.append(target.case.name)
        todo = [target for target in targets if target not in done]
        with (
            reporter.stage(f"predict {len(todo)} case{'s' if len(todo) != 1 else ''}", len(todo)) as stage,
            ThreadPoolExecutor(self.readers) as reading,
            ThreadPoolExecutor(self.readers) as writing,
        ):
            written: deque[tuple[Target, Future[list[dict[str, Any]]]]] = deque()
            for target, read in _ahead(reading, self._read, todo, self.readers):
                try:
                    loaded, prepared, origin = read.result()
                    summary.scales[target.case.name] = loaded.volume.scale
                    if loaded.volume.doubt:
                        summary.doubts[target.case.name] = loaded.volume.doubt
                    labels, chances = segment_slices(
                        self.engine, self._channels(prepared.images), self.batch_size, target.probabilities is not None
                    )
                except (InputError, MemoryError, OSError) as error:
                    summary.failed[target.case.name] = str(error) or type(error).__name__
                else:
                    while len(written) >= self.readers:
                        _finish(*written.popleft(), summary)
                    job = writing.submit(self._write, target, loaded, prepared, origin, labels, chances)
                    written.append((target, job))
                    del loaded, prepared, labels, chances
                stage.advance(note=target.case.name)
            while written:
                _finish(*written.popleft(), summary)
        return summary

    def _read(self, target: Target) -> tuple[Loaded, PreparedCase, Origin]:
        loaded = load_input(target.case, self.engine.channels, self.recipe.data.voxel_size)
        if target.dicom_seg is not None:
            loaded = replace(loaded, sources=seg_sources(target.case.files[0]))
        return loaded, self.preparation.apply(loaded.volume), self._origin(target.case)

    def _channels(self, images: np.ndarray) -> np.ndarray:
        """Return images (S, C, H, W) with as many channels as the network takes; a single channel is repeated."""
        return images if images.shape[1] == self.engine.channels else images.repeat(self.engine.channels, axis=1)

    def _write(
        self,
        target: Target,
        loaded: Loaded,
        prepared: PreparedCase,
        origin: Origin,
        labels: np.ndarray,
        chances: np.ndarray | None,
    ) -> list[dict[str, Any]]:
        """Resample a prediction to the case's grid and write it, the label map last: it marks the case as complete."""
        volume = restore(labels, prepared.record)
        self._clear(target, origin)
        if target.probabilities is not None and chances is not None:
            maps = (restore(chance, prepared.record, outside=float(n == 0)) for n, chance in enumerate(chances))
            write_probabilities(target.probabilities, maps, len(chances), loaded.image, origin)
        if target.preview is not None and self.draw is not None:
            self.draw(target.preview, loaded, volume, prepared, self.recipe.classes)
        if target.dicom_seg is not None and loaded.sources is not None:
            write_dicom_seg(target.dicom_seg, volume, loaded.sources, self.recipe.classes, origin)
        write_labels(target.labels, volume, loaded.image, loaded.volume.affine, origin)
        return self._volumes(target.case.name, volume, loaded.image)

    def _volumes(self, case: str, labels: np.ndarray, image: Any) -> list[dict[str, Any]]:
        counts = {label: int(np.count_nonzero(labels == label)) for label in self.recipe.classes if label}
        ml = millilitres(image, self.recipe.data.voxel_size)
        return [
            {
                "case": case,
                "label": label,
                "structure": self.recipe.classes[label],
                "voxels": count,
                "ml": None if ml is None else round(count * ml, 4),
            }
            for label, count in sorted(counts.items())
        ]

    def _origin(self, case: Input) -> Origin:
        return {**self._made_by, "image": " ".join(_digest(file) for file in case.files)}

    def _clear(self, target: Target, origin: Origin) -> None:
        """Remove an earlier prediction of the case with another provenance, with all that lies beside it.

        So the files next to a label map always belong to that label map.
        """
        probabilities, preview, dicom_seg = companions(target.labels)
        if not target.labels.exists() or _otherwise(read_origin(target.labels), origin):
            target.labels.unlink(missing_ok=True)
            if target.voxels is not None:
                target.voxels.unlink(missing_ok=True)
            if is_our_preview(preview):
                preview.unlink()
        if are_probabilities(probabilities) and _otherwise(read_origin(probabilities), origin):
            probabilities.unlink()
        if dicom_seg.is_file() and _otherwise(read_origin(dicom_seg), origin):
            dicom_seg.unlink()

    def _finished(self, target: Target) -> bool:
        """Whether all files exist. Raises InputError if one, or a file of ours next to it, has another provenance."""
        there = [path for path in target.wanted if path.exists()]
        if target.voxels is not None and target.voxels.exists() and not target.labels.exists():
            raise InputError(
                f"{target.voxels} is there without {target.labels.name}; use --overwrite, "
                "or choose another place with --out"
            )
        probabilities, _, dicom_seg = companions(target.labels)
        left = [probabilities] if probabilities not in there and are_probabilities(probabilities) else []
        left += [dicom_seg] if dicom_seg not in there and read_origin(dicom_seg) is not None else []
        expected = self._origin(target.case) if there or left else {}
        for path in (*there, *left):
            if path == target.preview:
                if not is_our_preview(path):
                    raise InputError(
                        f"{path} exists and is no preview of vitrim's; move it, or replace it with --overwrite"
                    )
                continue
            found = read_origin(path)
            other = _otherwise(found, expected)
            if found is None or other:
                how = f"with another {' and '.join(other)}" if found else "by something else"
                if found and not found.keys() >= expected.keys():
                    how = f"by vitrim {found.get('version', 'of unknown version')}, with an incomplete provenance"
                raise InputError(
                    f"{path} exists and was made {how}; replace it with --overwrite, or choose another place with --out"
                )
        return there == target.wanted


def _digest(path: Path) -> str:
    """Return the SHA-256 of a volume's file; of a volume of several files, that of theirs in order."""
    parts = [sha256(part) for part in members(path)]
    return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _otherwise(found: Origin | None, expected: Origin) -> list[str]:
    """Return the keys in which the provenance of a file differs from the expected one; none if `found` is None."""
    if found is None:
        return []
    return [key for key in ("network", "precision", "image", "preparation") if found.get(key) != expected[key]]


def check_writable(folder: Path) -> None:
    """Create `folder` and check that it is writable. Raises InputError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Target], Any], targets: list[Target], ahead: int
) -> Iterator[tuple[Target, Future[Any]]]:
    """Yield each target with its finished work in the pool. The work on at most `ahead` later targets has begun."""
    left = iter(targets)
    coming = deque((target, pool.submit(work, target)) for target in islice(left, ahead))
    while coming:
        target, now = coming.popleft()
        wait([now])
        coming.extend((later, pool.submit(work, later)) for later in islice(left, 1))
        yield target, now
        del now


def _finish(target: Target, written: Future[list[dict[str, Any]]], summary: Summary) -> None:
    """Wait until a case is written, and add its volumes to `summary`, or why it failed.

    Raises InputError if the disk does not take it: then no other case can be written either.
    """
    try:
        summary.volumes += written.result()
    except InputError as error:
        summary.failed[target.case.name] = str(error)
    except OSError as error:
        raise InputError(
            f"cannot write {target.labels}: {error.strerror or error}; finished cases stay, and the same command "
            f"continues with the others"
        ) from error
