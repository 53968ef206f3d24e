"""Volumes of every format have the voxels and the place that SimpleITK gives them; damaged ones are refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats import SHAPE, TURNED, itk_affine, itk_image, sitk, voxels, write_volume
from tests.support import vitrim
from vitrim.config.schema import DataConfig
from vitrim.data.cache import content_hash
from vitrim.data.formats import members, read_voxels
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd")


@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("ending", ENDINGS)
def test_voxels_and_place_are_those_of_simpleitk(ending: str, turned: str, tmp_path: Path) -> None:
    path = write_volume(tmp_path / f"a{ending}", voxels(), TURNED[turned])
    found = read_voxels(path)
    assert np.array_equal(found.array, voxels())
    assert found.oriented
    np.testing.assert_allclose(found.affine, itk_affine(sitk.ReadImage(str(path))), atol=1e-4)


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64, np.int64])
def test_compressed_voxels_of_any_type_are_read(ending: str, kind: type, tmp_path: Path) -> None:
    array = (voxels() % 100).astype(kind)
    found = read_voxels(write_volume(tmp_path / f"a{ending}", array, zipped=True)).array
    assert found.dtype == kind
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("left-posterior-superior", (-1, -1, 1))],
)
def test_an_nrrd_file_may_count_in_other_directions(space: str, signs: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    head = (
        f"NRRD0004\ntype: uchar\ndimension: 3\nspace: {space}\nsizes: 2 3 4\n"
        "space directions: (2,0,0) (0,3,0) (0,0,4)\nkinds: domain domain domain\nencoding: raw\n"
        "space origin: (5,6,7)\n\n"
    )
    path.write_bytes(head.encode() + bytes(range(24)))
    affine = np.diag([*signs, 1]) @ np.array([[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    np.testing.assert_allclose(read_voxels(path).affine, affine)
    path.write_bytes(path.read_bytes().replace(f"space: {space}".encode(), b"space dimension: 3"))
    assert not read_voxels(path).oriented


def test_channels_are_the_fourth_axis(tmp_path: Path) -> None:
    both = np.stack([voxels(), voxels(1)], 3)
    for ending in (".nrrd", ".mha"):
        vector = sitk.GetImageFromArray(np.ascontiguousarray(both.transpose(2, 1, 0, 3)), isVector=True)
        sitk.WriteImage(vector, str(tmp_path / f"vector{ending}"))
        joined = sitk.JoinSeries([itk_image(voxels()), itk_image(voxels(1))])
        sitk.WriteImage(joined, str(tmp_path / f"joined{ending}"))
        for name in ("vector", "joined"):
            assert np.array_equal(read_voxels(tmp_path / f"{name}{ending}").array, both)
        np.testing.assert_allclose(
            read_voxels(tmp_path / f"joined{ending}").affine, itk_affine(itk_image(voxels())), atol=1e-9
        )
    sitk.WriteImage(vector, str(tmp_path / "layers.seg.nrrd"))
    with pytest.raises(DataError, match="overlapping segments in 2 layers"):
        read_voxels(tmp_path / "layers.seg.nrrd")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more" * 300)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def text(path: Path) -> None:
    path.write_text("not an image\n" * 30)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def promising(path: Path) -> None:
    content = path.read_bytes().replace(b"20 24 5", b"20000 24000 50000", 1)
    path.write_bytes(content)


DAMAGES = [
    (damage, zipped) for damage in (cut, grown, text, empty, header_only, binary, promising) for zipped in (0, 1)
]


@pytest.mark.parametrize(("damage", "zipped"), [*DAMAGES, (flipped, 1)])  # raw voxels have no checksum
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_damaged_file_is_one_line(
    ending: str, damage: Callable[[Path], None], zipped: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_volume(tmp_path / f"a{ending}", np.random.default_rng(0).integers(0, 999, SHAPE), zipped=bool(zipped))
    damage(path)
    with pytest.raises(DataError) as error:
        read_voxels(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_voxels_in_another_file_are_part_of_the_volume_and_lie_beside_it(ending: str, tmp_path: Path) -> None:
    path = write_volume(tmp_path / f"a{ending}", voxels())
    beside = tmp_path / "a.raw"
    assert members(path) == (path, beside)
    before = content_hash(path)
    flipped(beside)
    assert content_hash(path) != before
    for change in (cut, grown, empty):
        content = beside.read_bytes()
        change(beside)
        with pytest.raises(DataError, match=r"a\.raw is damaged"):
            read_voxels(path)
        beside.write_bytes(content)
    header = path.read_text()
    (tmp_path / "in").mkdir()
    for name, word in (("../a.raw", "not followed"), ("/etc/passwd", "not followed"), ("b.raw", "not there")):
        moved = tmp_path / "in" / path.name
        moved.write_text(header.replace("a.raw", name))
        with pytest.raises(DataError, match=word):
            read_voxels(moved)
    path.write_text(header.replace("a.raw", "LIST"))
    with pytest.raises(DataError, match="several files"):
        read_voxels(path)


@pytest.mark.parametrize(
    ("ending", "old", "new", "word"),
    [
        (".nrrd", "encoding: raw", "encoding: ascii", "encoding 'ascii'"),
        (".nrrd", "kinds:", 'space units: "um" "um" "um"\nkinds:', "units"),
        (".nrrd", "type: short", "type: block", "plain numbers"),
        (".nrrd", "(1.2", "(nan", "a.nrrd"),
        (".mha", "BinaryData = True", "BinaryData = False", "as text"),
        (".mha", "MET_SHORT", "MET_SHORT_ARRAY", "plain numbers"),
        (".mha", "DimSize = 20 24 5", "DimSize = 20 24", "axes"),
        (".zip.mha", "CompressedDataSize = ", "CompressedDataSize = 1", "bytes of compressed voxels"),
        (".zip.mha", "CompressedDataSize", "CompressedSize", "no 'CompressedDataSize'"),
        (".mha", "ElementSpacing = 1.2 1.5 4", "ElementSpacing = 0 0 0", "a.mha"),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused(ending: str, old: str, new: str, word: str, tmp_path: Path) -> None:
    path = write_volume(tmp_path / f"a{ending}", voxels(), np.eye(3), zipped="zip" in ending)
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))
    with pytest.raises(DataError, match=re.escape(word)):
        read_voxels(path)


def test_a_file_of_unknown_format_is_named_with_the_formats_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.mgz").write_text("")
    with pytest.raises(DataError, match=r"a\.mgz has no format that vitrim reads: expected .*\.nrrd.*DICOM"):
        read_voxels(tmp_path / "a.mgz")


def test_without_simpleitk_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_volume(tmp_path / "a.nrrd", voxels())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match=re.escape("pip install 'vitrim[formats]'")):
        read_voxels(path)


@pytest.mark.parametrize(
    ("image", "label"), [(".nrrd", ".seg.nrrd"), (".mha", ".mha"), (".mhd", ".mhd"), (".nii.gz", ".nrrd")]
)
def test_a_data_set_of_another_format_is_checked_and_read(image: str, label: str, tmp_path: Path) -> None:
    labels = {n: (voxels(n) > 100).astype(np.uint8) for n in range(3)}
    for n in range(3):
        write_volume(tmp_path / f"imagesTr/case_{n}_0000{image}", voxels(n))
        write_volume(tmp_path / f"labelsTr/case_{n}{label}", labels[n])
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    case_set = read_cases(DataConfig(image_size=32), tmp_path)
    assert case_set.unused == ()
    volume = load_volume(case_set.case("case_1"), case_set)
    assert np.array_equal(volume.image[0], voxels(1))
    assert np.array_equal(volume.label, labels[1])
    assert vitrim("data", "check", "decathlon", tmp_path, "--out", tmp_path / "found.json") == 0


def test_only_files_with_the_file_ending_of_dataset_json_are_cases(tmp_path: Path) -> None:
    for ending in (".nrrd", ".mha"):
        write_volume(tmp_path / f"imagesTr/a_0000{ending}", voxels())
        write_volume(tmp_path / f"labelsTr/a{ending}", (voxels() > 0).astype(np.uint8))
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".mha"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    case_set = read_cases(DataConfig(image_size=32), tmp_path)
    assert [path.name for path in case_set.cases[0].files] == ["a_0000.mha", "a.mha"]
    assert any("a_0000.nrrd" in line for line in case_set.unused)
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "file_ending": ".png"}))
    with pytest.raises(DataError, match=r"file_ending is '\.png'"):
        read_cases(DataConfig(image_size=32), tmp_path)
