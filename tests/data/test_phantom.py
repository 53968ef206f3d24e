"""Phantoms, read back through the readers that real data go through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitrim.config import DataConfig, PhantomConfig
from vitrim.data.phantom import make_phantom
from vitrim.data.readers import load_volume, read_cases
from vitrim.errors import InputError

ORGANS = ["liver", "spleen", "left kidney", "right kidney", "stomach"]


def abdomen(folder: Path, **changes: object) -> Path:
    return make_phantom(PhantomConfig(kind="abdomen", **{"cases": 2, "classes": 5, **changes}), folder)  # type: ignore[arg-type]


def test_five_organs_each_fill_at_least_a_hundredth_of_the_body(tmp_path: Path) -> None:
    case_set = read_cases(DataConfig(), abdomen(tmp_path / "set", cases=6))
    assert list(case_set.classes.values()) == ["background", *ORGANS]
    shares = []
    for case in case_set.cases:
        volume = load_volume(case, case_set)
        assert volume.label is not None
        body = (volume.image > -300).sum()
        shares.append([(volume.label == n).sum() / body for n in range(1, 6)])
    assert np.min(np.mean(shares, axis=0)) > 0.01
    assert np.min(shares) > 0.008


def test_the_seed_decides_the_voxels_and_every_case_is_another(tmp_path: Path) -> None:
    sets = [abdomen(tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    images = []
    for folder in sets:
        case_set = read_cases(DataConfig(), folder)
        images.append([load_volume(case, case_set).image for case in case_set.cases])
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0][0], images[2][0])
    assert not np.array_equal(images[0][0], images[0][1])


def test_organs_lie_where_they_do_in_a_patient(tmp_path: Path) -> None:
    case_set = read_cases(DataConfig(), abdomen(tmp_path / "set", classes=8))
    for case in case_set.cases:
        volume = load_volume(case, case_set)
        assert volume.label is not None
        place = {
            name: volume.affine[:3, :3] @ np.argwhere(volume.label == n).mean(0) for n, name in case_set.classes.items()
        }
        right, front = 0, 1
        assert place["liver"][right] > place["stomach"][right] > place["spleen"][right]
        assert place["right kidney"][right] > place["aorta"][right] > place["left kidney"][right]
        assert place["stomach"][front] > place["left kidney"][front]


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        abdomen(tmp_path / "set")
    assert (tmp_path / "set" / "thesis.txt").exists()


def test_more_classes_than_the_kind_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 to 8 classes"):
        abdomen(tmp_path / "set", classes=9)
    assert not (tmp_path / "set").exists()
