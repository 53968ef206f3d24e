"""Slices on disk, prepared once and memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vitrim.data.cases import Case, CaseSet
from vitrim.data.preprocess import Preparation, Prepared
from vitrim.data.volumes import load_volume
from vitrim.errors import InputError

FORMAT = 1
"""Goes up when what is written into the cache changes."""

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


class SliceCache:
    """Prepared cases in a folder, one entry each, named by the content of its files and the preparation.

    An entry appears by one rename, whole or not at all; so two processes may build the same cache at once, and one
    that is killed leaves nothing that is taken for an entry.
    """

    def __init__(self, entries: dict[str, Path]) -> None:
        self._entries = entries
        self._open: dict[str, Prepared] = {}

    @classmethod
    def build(
        cls,
        case_set: CaseSet,
        ids: Iterable[str],
        preparation: Preparation,
        folder: Path,
        progress: Progress | None = None,
    ) -> SliceCache:
        """Prepare the cases `ids` that `folder` does not hold yet. InputError as from `load_volume`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        ids = tuple(ids)
        entries = {}
        for done, id in enumerate(ids):
            case = case_set.case(id)
            entries[id] = folder / entry_name(case, case_set, preparation)
            if _whole(entries[id]) is None:
                _build_entry(case, case_set, preparation, entries[id])
            if progress:
                progress(done + 1, len(ids))
        return cls(entries)

    @property
    def ids(self) -> tuple[str, ...]:
        """The cases that can be asked for."""
        return tuple(self._entries)

    @property
    def fingerprint(self) -> str:
        """Stands for the content of all cases' files and for the preparation, whatever the files' place and order."""
        return self.fingerprint_of(self._entries)

    def fingerprint_of(self, ids: Iterable[str]) -> str:
        """The same of some cases alone."""
        named = sorted((id, self._entries[id].name) for id in ids)
        return hashlib.blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Names of the folders in which some cases lie; with them, another machine finds the same cases."""
        return {id: self._entries[id].name for id in ids}

    def case(self, id: str) -> Prepared:
        """One case, its arrays memory-mapped and read-only."""
        if id not in self._open:
            if id not in self._entries:
                raise InputError(f"case {id!r} is not in the cache")
            prepared = _whole(self._entries[id])
            if prepared is None:
                raise InputError(
                    f"the cache entry {self._entries[id]} has gone or is damaged: delete it and start again"
                )
            self._open[id] = prepared
        return self._open[id]

    def __getstate__(self) -> dict[str, Any]:
        return {"_entries": self._entries, "_open": {}}  # another process maps the files itself


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
                raise InputError(f"case {id} has no label: it cannot take part in training")
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


def entry_name(case: Case, case_set: CaseSet, preparation: Preparation) -> str:
    """Name of a case's cache entry: changes with the content of its files and with whatever is done to them."""
    digest = hashlib.blake2b(digest_size=16)
    meaning = {
        "format": FORMAT,
        "steps": preparation.describe(),
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
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _build_entry(case: Case, case_set: CaseSet, preparation: Preparation, entry: Path) -> None:
    prepared = preparation.apply(load_volume(case, case_set))
    temporary = _scratch(entry)
    try:
        np.save(temporary / "images.npy", prepared.images)
        record = dict(prepared.record)
        if prepared.labels is not None:
            np.save(temporary / "labels.npy", prepared.labels)
            record["labelled_slices"] = np.flatnonzero(prepared.labels.any(axis=(1, 2))).tolist()
        (temporary / "record.json").write_text(json.dumps(record), encoding="utf-8")
        temporary.chmod(0o755)
        _put(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, entry: Path, attempts: int = 20) -> None:
    """Rename a finished entry to its place, unless another process was faster; a damaged one makes way."""
    for attempt in range(attempts):
        try:
            temporary.rename(entry)
            return
        except OSError:
            if _whole(entry) is not None:
                return
            if attempt == attempts - 1:
                raise
        aside = _scratch(entry)
        with suppress(OSError):  # it may have gone meanwhile
            entry.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _scratch(entry: Path) -> Path:
    """A new folder beside an entry, whose name says which process of which machine made it."""
    return Path(tempfile.mkdtemp(prefix=f".{entry.name}.{socket.gethostname()}.{os.getpid()}.", dir=entry.parent))


def _whole(entry: Path) -> Prepared | None:
    """The entry, mapped; None if it is absent or damaged."""
    try:
        record = json.loads((entry / "record.json").read_text(encoding="utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = None
        if "labelled_slices" in record:
            labels = np.load(entry / "labels.npy", mmap_mode="r", allow_pickle=False)
            if labels.shape != (images.shape[0], *images.shape[2:]):
                return None
    except (OSError, ValueError, EOFError):
        return None
    return Prepared(images, labels, record)


def _sweep(folder: Path) -> None:
    """Remove what processes of this machine left when they were killed while building."""
    for path in folder.glob(".*.*.*"):
        host, _, process = path.name.rpartition(".")[0].rpartition(".")
        if host.endswith(f".{socket.gethostname()}") and process.isdigit() and not _alive(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    if os.name == "nt":
        return True  # there, asking after a process would interrupt it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
