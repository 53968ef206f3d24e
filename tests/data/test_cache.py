"""The cache of preprocessed slices."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from vitrim.config.schema import DataConfig
from vitrim.data import cache as slices
from vitrim.data import check
from vitrim.data.cache import SliceCache, SliceDataset, prepare_cases
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import InputError

CONFIG = DataConfig(image_size=32)
FORK = multiprocessing.get_context("fork")  # without imports it starts at once
PREPARATION = Preprocessing.from_config(CONFIG)


def build(data: Path, folder: Path, preparation: Preprocessing = PREPARATION) -> SliceCache:
    case_set = read_cases(CONFIG, data)
    return SliceCache.build(case_set, case_set.ids, preparation, folder)


def test_the_cache_holds_what_preparation_gives(decathlon: Path, tmp_path: Path) -> None:
    case_set = read_cases(CONFIG, decathlon)
    cached = build(decathlon, tmp_path / "cache").case("case_1")
    fresh = PREPARATION.apply(load_volume(case_set.case("case_1"), case_set))
    np.testing.assert_array_equal(cached.images, fresh.images)
    np.testing.assert_array_equal(cached.labels, fresh.labels)
    assert isinstance(cached.images, np.memmap)
    assert not cached.images.flags.writeable
    assert cached.record["steps"] == fresh.record["steps"]


def test_an_item_is_an_image_and_its_label(decathlon: Path, tmp_path: Path) -> None:
    dataset = SliceDataset(build(decathlon, tmp_path / "cache"), ["case_0", "case_1", "case_2"])
    assert len(dataset) == 18
    item = dataset[0]
    assert (item["image"].shape, item["image"].dtype) == ((1, 32, 32), torch.float32)
    assert (item["label"].shape, item["label"].dtype) == ((32, 32), torch.uint8)


def test_a_batch_is_what_torch_would_make_of_it(decathlon: Path, tmp_path: Path) -> None:
    cache = build(decathlon, tmp_path / "cache")
    items = [SliceDataset(cache, cache.ids)[n] for n in (0, 3, 7)]
    batch, expected = slices.collate_slices(items), default_collate(items)
    for name in ("image", "label"):
        assert batch[name].dtype == expected[name].dtype
        assert torch.equal(batch[name], expected[name])


def test_slices_without_any_label_can_be_left_out(decathlon: Path, tmp_path: Path) -> None:
    dataset = SliceDataset(build(decathlon, tmp_path / "cache"), ["case_0", "case_2"], empty_slices=False)
    assert [number for _, number in dataset.index] == [1, 2, 3, 1, 2, 3, 4]
    assert all(item["label"].any() for item in dataset)  # type: ignore[attr-defined]


def test_workers_map_the_files_themselves(decathlon: Path, tmp_path: Path) -> None:
    cache = build(decathlon, tmp_path / "cache")
    dataset = SliceDataset(cache, cache.ids)
    assert len(pickle.dumps(dataset)) < 4000
    loader = DataLoader(dataset, batch_size=4, num_workers=1)
    assert sum(len(batch["image"]) for batch in loader) == 18


def test_what_is_there_is_not_prepared_again(decathlon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build(decathlon, tmp_path / "cache")
    monkeypatch.setattr(slices, "load_volume", lambda *_: pytest.fail("read again"))
    assert build(decathlon, tmp_path / "cache").fingerprint == before.fingerprint


def test_the_fingerprint_follows_content_and_preparation_only(decathlon: Path, tmp_path: Path) -> None:
    before = build(decathlon, tmp_path / "a").fingerprint
    elsewhere = shutil.copytree(decathlon, tmp_path / "elsewhere")
    assert build(elsewhere, tmp_path / "b").fingerprint == before
    other = Preprocessing.from_config(DataConfig(image_size=32, clip=(0, 100)))
    assert build(decathlon, tmp_path / "a", other).fingerprint != before
    shutil.copy(decathlon / "labelsTr" / "case_1.nii.gz", decathlon / "labelsTr" / "case_0.nii.gz")
    assert build(decathlon, tmp_path / "a").fingerprint != before


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "reference.npy", "record.json"])
def test_a_damaged_entry_is_made_again(decathlon: Path, tmp_path: Path, name: str) -> None:
    cache = build(decathlon, tmp_path / "cache")
    before = np.array(cache.case("case_0").images)
    damaged = list((tmp_path / "cache").glob(f"*/{name}"))
    assert len(damaged) == 3
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(build(decathlon, tmp_path / "cache").case("case_0").images, before)


def test_a_case_without_label_cannot_be_trained_on(decathlon: Path, tmp_path: Path) -> None:
    cache = build(decathlon, tmp_path / "cache")
    cache.case("case_0").labels = None
    with pytest.raises(InputError, match="case_0 has no label"):
        SliceDataset(cache, ["case_0"])


def _build_again_and_again(data: Path, folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        build(data, folder)
        for entry in folder.glob("[!.]*"):
            shutil.rmtree(entry, ignore_errors=True)


def test_two_processes_may_build_at_once_even_if_one_deletes(decathlon: Path, tmp_path: Path) -> None:
    """The other process deletes entries while this one builds; at the end every entry is complete."""
    folder = tmp_path / "cache"
    process = FORK.Process(target=_build_again_and_again, args=(decathlon, folder, 2.0))
    process.start()
    while process.is_alive():
        build(decathlon, folder)
    assert process.exitcode == 0
    cache = build(decathlon, folder)
    assert cache.case("case_2").images.shape == (6, 1, 32, 32)
    assert len(list(folder.glob("[!.]*"))) == 3
    assert not list(folder.glob("*.part"))


def _hang_while_building(data: Path, folder: Path) -> None:
    original = np.save

    def save_and_hang(path: Path, array: np.ndarray) -> None:
        original(path, array)
        time.sleep(60)

    np.save = save_and_hang  # type: ignore[assignment]
    build(data, folder)


def test_a_process_that_is_killed_while_building_leaves_no_entry(decathlon: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    process = FORK.Process(target=_hang_while_building, args=(decathlon, folder))
    process.start()
    begin = time.monotonic()
    while not list(folder.glob(".*/images.npy")):
        assert time.monotonic() - begin < 60
        time.sleep(0.05)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert build(decathlon, folder).case("case_0").images.shape == (6, 1, 32, 32)
    assert not list(folder.glob(".*/images.npy"))


def test_a_study_reads_every_volume_once(decathlon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fills the cache, and the cache holds the reference that an evaluation needs."""
    read: list[str] = []
    original = check.read_volume
    monkeypatch.setattr(check, "read_volume", lambda case, cases: read.append(case.id) or original(case, cases))
    config = DataConfig(image_size=32)
    cases = read_cases(config, decathlon)
    findings, cache = prepare_cases(cases, config, cases.ids, cases.ids[:2], tmp_path / "cache")
    assert sorted(read) == list(cases.ids)
    assert [case.case for case in findings.cases] == list(cases.ids)
    assert cache.ids == cases.ids[:2]
    for id in cache.ids:
        volume = load_volume(cases.case(id), cases)
        np.testing.assert_array_equal(cache.case(id).reference, volume.label)
        assert cache.case(id).spacing == volume.spacing
    again, _ = prepare_cases(cases, config, cases.ids, cases.ids[:2], tmp_path / "cache")
    assert sorted(read) == sorted([*cases.ids, cases.ids[2]])  # only the case that is not kept is read again
    assert again == findings


def test_a_bad_case_is_listed_and_not_kept(decathlon: Path, tmp_path: Path) -> None:
    config = DataConfig(image_size=32)
    cases = read_cases(config, decathlon)
    (decathlon / "imagesTr" / "case_1.nii.gz").write_bytes(b"no image")
    findings, cache = prepare_cases(cases, config, cases.ids, cases.ids, tmp_path / "cache")
    assert cache.ids == ("case_0", "case_2")
    assert len(findings.errors) == 1
    assert "case_1" in findings.errors[0]
