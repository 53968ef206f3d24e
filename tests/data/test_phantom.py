"""Phantoms, read with the readers for real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from vitrim.config.schema import DataConfig, PhantomConfig
from vitrim.data.cases import Volume
from vitrim.data.phantoms import longrange
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import InputError

SMALL = {"brain": (48, 24, 48), "cardiac": (64, 64, 4), "abdomen": (64, 64, 6), "longrange": (64, 64, 3)}


def make(folder: Path, kind: str = "abdomen", layout: str = "decathlon", **changes: Any) -> Path:
    """Write a small phantom, by default with three cases."""
    return write_phantom(PhantomConfig(**{"kind": kind, "cases": 3, "shape": SMALL[kind], **changes}), folder, layout)


def volumes(folder: Path, layout: str = "decathlon") -> list[Volume]:
    """Read all volumes in a folder with the layout's reader."""
    case_set = read_cases(DataConfig(layout=layout), folder)  # type: ignore[arg-type]
    return [load_volume(case, case_set) for case in case_set.cases]


def labels(volume: Volume) -> np.ndarray:
    assert volume.label is not None
    return volume.label


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("brain", "ibsr18"),
        ("cardiac", "emidec"),
        ("abdomen", "synapse"),
        ("abdomen", "synapse-raw"),
        ("brain", "decathlon"),
        ("cardiac", "decathlon"),
        ("abdomen", "decathlon"),
        ("longrange", "decathlon"),
    ],
)
def test_every_kind_is_read_back_in_its_layouts(tmp_path: Path, kind: str, layout: str) -> None:
    read_as = layout.removesuffix("-raw")
    found = volumes(make(tmp_path / "set", kind, layout), read_as)
    assert len(found) == 3
    case_set = read_cases(DataConfig(layout=read_as), tmp_path / "set")  # type: ignore[arg-type]
    present = set(np.unique(np.concatenate([labels(volume).ravel() for volume in found])).tolist())
    assert present == set(case_set.classes) or kind == "cardiac"
    assert all(volume.shape == SMALL[kind] for volume in found)


def test_the_release_and_the_raw_form_of_an_abdomen_hold_the_same_organs(tmp_path: Path) -> None:
    release = volumes(make(tmp_path / "release", layout="synapse"), "synapse")
    raw = volumes(make(tmp_path / "raw", layout="synapse-raw"), "synapse")
    preparation = Preprocessing.from_config(DataConfig(image_size=64, clip=(-125, 275)))
    for one, other in zip(release, raw, strict=True):
        assert one.spacing is None
        assert other.spacing is not None
        first, second = preparation.apply(one), preparation.apply(other)
        np.testing.assert_array_equal(first.labels, second.labels)
        np.testing.assert_allclose(first.images, second.images, atol=0.02)


@pytest.mark.parametrize("orientation", ["LPS", "SAR", "PIL"])
def test_an_odd_orientation_is_the_same_patient(tmp_path: Path, orientation: str) -> None:
    plain = volumes(make(tmp_path / "plain", "brain"))
    turned = volumes(make(tmp_path / "turned", "brain", orientation=orientation))
    preparation = Preprocessing.from_config(DataConfig(image_size=48, axis="coronal"))
    for one, other in zip(plain, turned, strict=True):
        assert nib.aff2axcodes(other.affine) == tuple(orientation)
        np.testing.assert_array_equal(preparation.apply(one).images, preparation.apply(other).images)


def test_noise_leaves_the_anatomy_as_it_is(tmp_path: Path) -> None:
    noisy, clean = volumes(make(tmp_path / "noisy")), volumes(make(tmp_path / "clean", noise=0))
    np.testing.assert_array_equal(labels(noisy[0]), labels(clean[0]))
    difference = noisy[0].image - clean[0].image
    assert 12 < difference.std() < 24


def test_a_bias_field_brightens_one_side(tmp_path: Path) -> None:
    plain = volumes(make(tmp_path / "plain", "brain", noise=0))[0].image[0]
    biased = volumes(make(tmp_path / "biased", "brain", noise=0, bias_field=0.4))[0].image[0]
    ratio = biased[plain > 60] / plain[plain > 60]
    assert 0.58 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.42


def test_spacing_can_be_anisotropic(tmp_path: Path) -> None:
    found = volumes(make(tmp_path / "set", "brain", spacing=(4.0, 8.0, 5.0), orientation="SAR"))
    assert found[0].spacing == pytest.approx((5.0, 8.0, 4.0))


def test_five_organs_each_fill_at_least_a_hundredth_of_the_body(tmp_path: Path) -> None:
    shares = []
    for volume in volumes(make(tmp_path / "set", cases=6, classes=5, shape=(128, 128, 12))):
        body = (volume.image > -300).sum()
        shares.append([(labels(volume) == n).sum() / body for n in range(1, 6)])
    assert np.min(shares) > 0.015


def test_the_seed_decides_the_voxels_and_every_case_is_another(tmp_path: Path) -> None:
    first, again, other = (volumes(make(tmp_path / name, seed=seed)) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, same.image)
    assert not np.array_equal(first[0].image, other[0].image)
    assert not np.array_equal(first[0].image, first[1].image)


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few, many = volumes(make(tmp_path / "few", cases=2)), volumes(make(tmp_path / "many", cases=4))
    np.testing.assert_array_equal(few[1].image, many[1].image)


def test_organs_lie_where_they_do_in_a_patient(tmp_path: Path) -> None:
    names = read_cases(DataConfig(), make(tmp_path / "set", shape=(96, 96, 12))).classes
    for volume in volumes(tmp_path / "set"):
        place = {name: volume.affine[:3, :3] @ np.argwhere(labels(volume) == n).mean(0) for n, name in names.items()}
        right, front = 0, 1
        assert place["liver"][right] > place["stomach"][right] > place["spleen"][right]
        assert place["right kidney"][right] > place["aorta"][right] > place["left kidney"][right]
        assert place["stomach"][front] > place["left kidney"][front]


def test_no_reflow_lies_inside_the_infarct_and_the_infarct_in_the_wall(tmp_path: Path) -> None:
    cores = 0
    for volume in volumes(make(tmp_path / "set", "cardiac", cases=8, shape=(96, 96, 6))):
        label = labels(volume)
        for infarct in (label == 4, label == 3):
            rim = ndimage.binary_dilation(infarct, np.ones((3, 3, 1))) & ~infarct
            if infarct.any():
                assert np.isin(label[rim], (1, 2, 3, 4)).mean() > (0.95 if label[infarct][0] == 4 else 0.5)
        cores += bool((label == 4).any())
    assert 1 <= cores <= 7


def test_the_cortex_is_folded(tmp_path: Path) -> None:
    """The edge of the white matter is more than twice as long as that of a disc with the area of the brain."""
    volume = volumes(make(tmp_path / "set", "brain", shape=(96, 80, 96), cases=2))[0]
    white = labels(volume)[:, 40] == 3
    edge = white ^ ndimage.binary_erosion(white)
    assert edge.sum() > 2.0 * 2 * np.sqrt(np.pi * (labels(volume)[:, 40] > 0).sum())


@pytest.mark.parametrize(("hops", "places"), [(1, 12), (2, 12), (3, 12), (4, 12), (5, 12), (1, 4), (2, 8), (1, 8)])
def test_following_the_marks_gives_the_class_and_counting_gives_nothing(hops: int, places: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        discs, marks = longrange._scene(rng, hops, places)
        for place, index in discs.items():
            here = (place + places // 2) % places
            for _ in range(hops - 1):
                here = marks[here]
            assert marks[here] == -index
        assert list(discs.values()).count(1) == list(discs.values()).count(2)
        assert list(marks.values()).count(-1) == list(marks.values()).count(-2)
        assert len(discs) + len(marks) == places


@pytest.mark.parametrize(("hops", "places"), [(1, 4), (2, 4), (2, 6), (3, 12), (6, 12)])
def test_where_marks_are_drawn_one_by_one_those_beside_the_way_tell_nothing(hops: int, places: int) -> None:
    rng = np.random.default_rng(0)
    same = []
    for _ in range(400):
        discs, marks = longrange._scene(rng, hops, places, balanced=False)
        assert len(discs) + len(marks) == places
        for place, index in discs.items():
            here, way = (place + places // 2) % places, 0
            while marks[here] >= 0:
                here, way = marks[here], way + 1
            assert (marks[here], way) == (-index, hops - 1)
            same += [mark == -index for other, mark in marks.items() if mark < 0 and other != here]
    assert abs(np.mean(same) - 0.5) < 4 * 0.5 / np.sqrt(len(same))


def test_discs_look_alike_whatever_their_class(tmp_path: Path) -> None:
    found = volumes(make(tmp_path / "set", "longrange", cases=20))
    values = [np.concatenate([v.image[0][labels(v) == n] for v in found]) for n in (1, 2)]
    assert abs(values[0].mean() - values[1].mean()) < 0.5


@pytest.mark.parametrize(
    ("changes", "layout", "message"),
    [
        ({"classes": 9}, "decathlon", "1 to 8 classes"),
        ({"kind": "brain"}, "emidec", "is written as decathlon or ibsr18"),
        ({"kind": "longrange", "hops": 6}, "decathlon", "hops can be 1 to 5"),
        ({"kind": "longrange", "places": 7}, "decathlon", "an even number of places"),
        ({"orientation": "LPS"}, "synapse", "always RAS"),
        ({"orientation": "RAR"}, "decathlon", "not an orientation"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_left(
    tmp_path: Path, changes: dict[str, Any], layout: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path / "set", **{"kind": "abdomen", **changes}, layout=layout)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        make(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
