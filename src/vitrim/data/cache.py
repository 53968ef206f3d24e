"""Prepared cases on disk: each volume is read, checked and prepared once, and memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import Dataset

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.check import CaseFindings, Findings, Inspection, inspect_case
from vitrim.data.preprocessing import PreparedCase, Preprocessing
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, InputError
from vitrim.files import remove, remove_unfinished, replacing, write_json

FORMAT = 1
"""Part of the name of every entry. A new number makes all entries, and all trials of a study, new ones."""

Progress = Callable[[int, int], None]
"""Called with the number of cases that are done, and the number of all cases."""


class SliceCache:
    """Prepared cases in a folder, one entry each, named by the content of the case's files and the preprocessing.

    An entry holds the slices as the network sees them, the reference on the original grid, and what was found in the
    case. It appears whole or not at all. Several processes may build the same cache; they take turns.
    """

    def __init__(self, entries: dict[str, Path]) -> None:
        self._entries = entries
        self._open: dict[str, PreparedCase] = {}

    @classmethod
    def build(
        cls,
        case_set: CaseSet,
        ids: Iterable[str],
        preprocessing: Preprocessing,
        folder: Path,
        progress: Progress | None = None,
    ) -> SliceCache:
        """Prepare the cases `ids` that `folder` does not hold yet. DataError as from `load_volume`."""
        ids, folder = tuple(ids), Path(folder)
        entries = {}
        with _building(folder):
            for done, id in enumerate(ids):
                case = case_set.case(id)
                entries[id] = folder / entry_name(case, case_set, preprocessing)
                if _whole(entries[id]) is None:
                    volume = load_volume(case, case_set)
                    _write_entry(entries[id], volume, preprocessing.apply(volume), None)
                if progress:
                    progress(done + 1, len(ids))
        return cls(entries)

    @property
    def ids(self) -> tuple[str, ...]:
        """The cases that can be asked for."""
        return tuple(self._entries)

    @property
    def fingerprint(self) -> str:
        """Hash of the content of all cases' files and of the preprocessing. Paths and order do not count."""
        return self.fingerprint_of(self._entries)

    def fingerprint_of(self, ids: Iterable[str]) -> str:
        """The same hash of some cases alone."""
        named = sorted((id, self._entries[id].name) for id in ids)
        return hashlib.blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Names of the entries of some cases; with them, another machine finds the same entries."""
        return {id: self._entries[id].name for id in ids}

    def case(self, id: str) -> PreparedCase:
        """One case. Its arrays are memory-mapped and read-only."""
        if id not in self._open:
            if id not in self._entries:
                raise DataError(f"case {id!r} is not in the cache")
            prepared = _whole(self._entries[id])
            if prepared is None:
                raise DataError(f"the cache entry {self._entries[id]} is missing or damaged: delete it and start again")
            self._open[id] = prepared
        return self._open[id]

    def __getstate__(self) -> dict[str, Any]:
        return {"_entries": self._entries, "_open": {}}  # another process maps the files itself


def prepare_cases(
    case_set: CaseSet,
    config: DataConfig,
    ids: Sequence[str],
    kept: Sequence[str],
    folder: Path,
    progress: Progress | None = None,
) -> tuple[Findings, SliceCache]:
    """Read the cases `ids` once, on all cores: list what is in them and what is wrong, and prepare those in `kept`.

    Findings and slices of a case that `folder` holds already are taken from there. Nothing is raised for a bad case:
    its errors are in the findings, and the cache does not hold it.
    """
    folder, preprocessing = Path(folder), Preprocessing.from_config(config)
    findings = Findings.begin(case_set)
    entries: dict[str, Path] = {}

    def prepare(id: str) -> tuple[Path | None, Inspection]:
        return _prepare(case_set.case(id), case_set, preprocessing, folder if id in wanted else None)

    wanted = set(kept)
    with _building(folder), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, (id, (entry, inspection)) in enumerate(zip(ids, pool.map(prepare, ids), strict=True)):
            findings.add(inspection)
            if entry is not None:
                entries[id] = entry
            if progress:
                progress(done + 1, len(ids))
    findings.finish(case_set)
    return findings, SliceCache({id: entries[id] for id in kept if id in entries})


@dataclass(frozen=True)
class PreparedData:
    """The cases of a data set as they are on disk, and as the networks see them."""

    config: DataConfig
    cases: CaseSet
    cache: SliceCache
    preprocessing: Preprocessing


class SliceDataset(Dataset[dict[str, torch.Tensor]]):
    """The slices of some cases: {"image": float32 (C, H, W), "label": int64 (H, W)}."""

    def __init__(self, cache: SliceCache, ids: Sequence[str], empty_slices: bool = True) -> None:
        """`empty_slices=False` leaves out slices that show nothing but background."""
        self._cache = cache
        self.index: list[tuple[str, int]] = []
        """Case and slice number of every item."""
        for id in ids:
            prepared = cache.case(id)
            if prepared.labels is None:
                raise DataError(f"case {id} has no label: it cannot take part in training")
            numbers = range(len(prepared.images)) if empty_slices else prepared.record["labelled_slices"]
            self.index.extend((id, int(number)) for number in numbers)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        id, number = self.index[item]
        prepared = self._cache.case(id)
        assert prepared.labels is not None
        return {
            "image": torch.from_numpy(np.array(prepared.images[number])),
            "label": torch.from_numpy(prepared.labels[number].astype(np.int64)),
        }


def collate_slices(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Make a batch of items: {"image": (B, C, H, W), "label": (B, H, W)}; give it to a DataLoader as `collate_fn`.

    Copies in one thread. torch's own collation wakes all of torch's threads for every batch, and where other work keeps
    the processor busy that takes a hundred times as long.
    """
    return {name: torch.from_numpy(np.stack([item[name].numpy() for item in items])) for name in ("image", "label")}


def entry_name(case: Case, case_set: CaseSet, preprocessing: Preprocessing) -> str:
    """Name of a case's cache entry: changes with the content of its files and with whatever is done to them."""
    digest = hashlib.blake2b(digest_size=16)
    meaning = {
        "format": FORMAT,
        "steps": preprocessing.describe(),
        "labels": sorted(case_set.label_values.items()),
        "channels": len(case_set.channels),
    }
    digest.update(json.dumps(meaning, sort_keys=True).encode())
    for path in case.files:
        digest.update(content_hash(path).encode())
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """Hash of a file's bytes, as hexadecimal; for Analyze and NIfTI pairs that of both files."""
    digest = hashlib.blake2b(digest_size=16)
    pair = path.with_suffix(".img")
    try:
        for part in (path, pair) if path.suffix == ".hdr" and pair.exists() else (path,):
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _prepare(
    case: Case, case_set: CaseSet, preprocessing: Preprocessing, folder: Path | None
) -> tuple[Path | None, Inspection]:
    """What was found in a case, and its entry in `folder`: None if it is not to be kept, or is not fit to be."""
    entry = None
    if folder is not None:
        try:
            entry = folder / entry_name(case, case_set, preprocessing)
        except InputError as error:
            return None, Inspection(CaseFindings.of(case), [str(error)], [])
        if (stored := _stored_inspection(entry, case)) is not None:
            return entry, stored
    inspection = inspect_case(case, case_set, preprocessing)
    volume, prepared = inspection.volume, inspection.prepared
    inspection.volume = inspection.prepared = None  # memory must not grow with the number of cases
    if entry is None or inspection.errors or volume is None or prepared is None:
        return None, inspection
    _write_entry(entry, volume, prepared, inspection)
    return entry, inspection


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Hold the cache in `folder` against other processes, and remove what killed processes left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        remove_unfinished(folder)
        yield


def _write_entry(entry: Path, volume: Volume, prepared: PreparedCase, inspection: Inspection | None) -> None:
    remove(entry)  # a damaged one, or one without what is written now
    with replacing(entry, keep_existing=True) as temporary:
        temporary.mkdir()
        np.save(temporary / "images.npy", prepared.images)
        record = dict(prepared.record)
        if prepared.labels is not None and volume.label is not None:
            np.save(temporary / "labels.npy", prepared.labels)
            np.save(temporary / "reference.npy", volume.label)
            record["labelled_slices"] = np.flatnonzero(prepared.labels.any(axis=(1, 2))).tolist()
        if inspection is not None:
            found = {"findings": asdict(inspection.findings), "warnings": inspection.warnings}
            write_json(temporary / "findings.json", found)
        (temporary / "record.json").write_text(json.dumps(record), encoding="utf-8")


def _stored_inspection(entry: Path, case: Case) -> Inspection | None:
    """What was found in a case when its entry was written; None if the entry does not say so, or is damaged."""
    if _whole(entry) is None:
        return None
    try:
        content = json.loads((entry / "findings.json").read_text(encoding="utf-8"))
        findings = CaseFindings(**content["findings"])
        warnings = [str(warning) for warning in content["warnings"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = [str(path) for path in case.files]
    return Inspection(findings, [], warnings) if (findings.case, findings.files) == (case.id, files) else None


def _whole(entry: Path) -> PreparedCase | None:
    """The entry, mapped into memory; None if it is absent, damaged, or of an older vitrim."""
    try:
        record = json.loads((entry / "record.json").read_text(encoding="utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = reference = None
        if "labelled_slices" in record:
            labels = np.load(entry / "labels.npy", mmap_mode="r", allow_pickle=False)
            reference = np.load(entry / "reference.npy", mmap_mode="r", allow_pickle=False)
            if labels.shape != (images.shape[0], *images.shape[2:]) or list(reference.shape) != record["shape"]:
                return None
    except (OSError, ValueError, EOFError, KeyError):
        return None
    return PreparedCase(images, labels, record, reference)
