"""A cache of preprocessed cases on disk: each volume is read, checked and preprocessed once, then memory-mapped."""

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
from vitrim.data.formats import members
from vitrim.data.preprocessing import PreparedCase, Preprocessing
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, InputError
from vitrim.files import remove, remove_unfinished, replacing, write_json

FORMAT = 1
"""Part of the name of every entry. A new number invalidates all entries, and all trials of a study."""

Progress = Callable[[int, int], None]
"""A function that gets the number of cases done and the number of all cases."""


class SliceCache:
    """Preprocessed cases in a folder. Each case has one entry, named by a hash of its files and the preprocessing.

    An entry holds the slices as the network sees them, the reference on the original grid, and the findings about the
    case. An entry is written completely or not at all. Several processes can build the same cache; a file lock makes
    them wait for each other.
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
        """Preprocess the cases `ids` that `folder` does not hold yet. Raises DataError as `load_volume` does."""
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
        """The ids of the cases in the cache."""
        return tuple(self._entries)

    @property
    def fingerprint(self) -> str:
        """Hash of the files of all cases and of the preprocessing. It does not depend on paths or order."""
        return self.fingerprint_of(self._entries)

    def fingerprint_of(self, ids: Iterable[str]) -> str:
        """Return the `fingerprint` of the cases `ids` alone."""
        named = sorted((id, self._entries[id].name) for id in ids)
        return hashlib.blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the entry name of each of the cases `ids`. The same case has the same name on another machine."""
        return {id: self._entries[id].name for id in ids}

    def case(self, id: str) -> PreparedCase:
        """Return one case with memory-mapped, read-only arrays.

        Raises DataError if the case is not in the cache, or if its entry is missing or damaged.
        """
        if id not in self._open:
            if id not in self._entries:
                raise DataError(f"case {id!r} is not in the cache")
            prepared = _whole(self._entries[id])
            if prepared is None:
                raise DataError(f"the cache entry {self._entries[id]} is missing or damaged: delete it and start again")
            self._open[id] = prepared
        return self._open[id]

    def __getstate__(self) -> dict[str, Any]:
        return {"_entries": self._entries, "_open": {}}  # another process maps the files again


def prepare_cases(
    case_set: CaseSet,
    config: DataConfig,
    ids: Sequence[str],
    kept: Sequence[str],
    folder: Path,
    progress: Progress | None = None,
) -> tuple[Findings, SliceCache]:
    """Read the cases `ids` once, on all cores: list their content and problems, and preprocess those in `kept`.

    If `folder` already holds a case, its findings and slices come from there. A bad case raises no error: its errors
    are in the findings, and the cache does not hold it.
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
    """The cases of a data set, with their configuration, cache and preprocessing."""

    config: DataConfig
    cases: CaseSet
    cache: SliceCache
    preprocessing: Preprocessing


class SliceDataset(Dataset[dict[str, torch.Tensor]]):
    """The slices of some cases. An item is {"image": float32 (C, H, W), "label": uint8 (H, W)}."""

    def __init__(self, cache: SliceCache, ids: Sequence[str], empty_slices: bool = True) -> None:
        """Index the slices of the cases `ids`; `empty_slices=False` leaves out slices that hold only background.

        Raises DataError if a case has no label.
        """
        self._cache = cache
        self.index: list[tuple[str, int]] = []
        """Case and slice number of every item."""
        for id in ids:
            prepared = cache.case(id)
            if prepared.labels is None:
                raise DataError(f"case {id} has no label: it cannot be used for training")
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
            "label": torch.from_numpy(np.array(prepared.labels[number])),
        }


def collate_slices(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Combine items into a batch {"image": (B, C, H, W), "label": (B, H, W)}; the `collate_fn` of a DataLoader.

    This function copies in one thread. torch's collation starts all of torch's threads for every batch, which takes 100
    times as long if other processes use the processor.
    """
    return {name: torch.from_numpy(np.stack([item[name].numpy() for item in items])) for name in ("image", "label")}


def entry_name(case: Case, case_set: CaseSet, preprocessing: Preprocessing) -> str:
    """Return the name of a case's cache entry: a hash of its files, the preprocessing, labels and channels.

    Raises DataError if a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    meaning = {
        "format": FORMAT,
        "steps": preprocessing.describe(),
        "labels": sorted(case_set.label_values.items()),
        "channels": len(case_set.channels),
        **({"colours": sorted(case_set.colours.items())} if case_set.colours else {}),
    }
    digest.update(json.dumps(meaning, sort_keys=True).encode())
    for path in case.files:
        digest.update(content_hash(path).encode())
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """Return the hash of a file as hexadecimal text; for a volume of several files, the hash of all of them.

    Raises DataError if a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for part in members(path):
            if part.exists() and not part.is_file():
                raise DataError(f"{part} is no regular file")
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _prepare(
    case: Case, case_set: CaseSet, preprocessing: Preprocessing, folder: Path | None
) -> tuple[Path | None, Inspection]:
    """Inspect a case and write its entry to `folder`. The entry is None without `folder`, or if the case has errors."""
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
    inspection.volume = inspection.prepared = None  # so that memory does not grow with the number of cases
    if entry is None or inspection.errors or volume is None or prepared is None:
        return None, inspection
    _write_entry(entry, volume, prepared, inspection)
    return entry, inspection


@contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Lock the cache in `folder` against other processes, and remove unfinished entries of killed processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        remove_unfinished(folder)
        yield


def _write_entry(entry: Path, volume: Volume, prepared: PreparedCase, inspection: Inspection | None) -> None:
    remove(entry)  # it may be damaged, or lack a file that is written now
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
    """Return the findings stored in an entry; None if it has none for this case and these files, or is damaged."""
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
    """Return the memory-mapped entry; None if it is missing, damaged, or written by an older vitrim."""
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
