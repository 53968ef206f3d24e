"""Data sets of pictures: images and masks as PNG, JPEG, TIFF and BMP."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.support import vitrim
from vitrim.config.schema import DataConfig
from vitrim.data.cases import Volume
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.split import split_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError

CONFIG = DataConfig(layout="pictures", image_size=32)
LABELS = {"background": 0, "cell": 128, "wall": 255}
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3), np.uint8)
MASK = np.array([0, 128, 255], np.uint8)[RNG.integers(0, 3, (20, 30))]


def save(path: Path, array: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def describe(folder: Path, **content: object) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS, **content}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures in colour with their masks."""
    for number in range(4):
        save(tmp_path / f"images/p{number // 2}_{number}.png", IMAGE + np.uint8(number))
        save(tmp_path / f"masks/p{number // 2}_{number}.png", MASK)
    describe(tmp_path)
    return tmp_path


def first(folder: Path) -> Volume:
    case_set = read_cases(CONFIG, folder)
    return load_volume(case_set.cases[0], case_set)


Pixels = np.ndarray | Image.Image | None


def only(folder: Path, image: Pixels, mask: Pixels, ending: str) -> Path:
    """Make the data set one picture, with an image or a mask of its own in the format of `ending`."""
    for path in [*(folder / "images").iterdir(), *(folder / "masks").iterdir()]:
        path.unlink()
    save(folder / f"images/a{ending if image is not None else '.png'}", IMAGE if image is None else image)
    return save(folder / f"masks/a{ending if mask is not None else '.png'}", MASK if mask is None else mask)


def test_a_picture_is_a_case_of_one_slice_in_pixels(folder):
    case_set = read_cases(CONFIG, folder)
    assert case_set.ids == ("p0_0", "p0_1", "p1_2", "p1_3")
    assert case_set.classes == {0: "background", 1: "cell", 2: "wall"}
    assert case_set.channels == ("red", "green", "blue")
    volume = first(folder)
    assert volume.spacing is None
    assert volume.image.shape == (3, 30, 20, 1)
    np.testing.assert_array_equal(volume.image[:, :, :, 0].T, IMAGE)
    np.testing.assert_array_equal(volume.label[:, :, 0].T, np.searchsorted([0, 128, 255], MASK))


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".TIFF"])
@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_every_format_gives_the_numbers_that_were_saved(folder, ending, kind):
    image = IMAGE if kind == "RGB" else IMAGE[..., 0]
    only(folder, image, None, ending)
    found = first(folder).image[..., 0]
    np.testing.assert_array_equal(found.T.reshape(image.shape), image)


def test_jpeg_images_are_read_as_pillow_reads_them(folder):
    only(folder, IMAGE, None, ".jpg")
    expected = np.asarray(Image.open(folder / "images/a.jpg"))
    np.testing.assert_array_equal(first(folder).image[..., 0].T, expected)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_kept(folder, ending):
    deep = RNG.integers(0, 65536, (20, 30)).astype(np.uint16)
    only(folder, deep, None, ending)
    np.testing.assert_array_equal(first(folder).image[0, :, :, 0].T, deep)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_of_colour_are_kept(folder, ending):
    sitk = pytest.importorskip("SimpleITK")
    deep = RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    only(folder, None, None, ".png")
    (folder / "images/a.png").unlink()
    sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(folder / f"images/a{ending}"))
    np.testing.assert_array_equal(first(folder).image[..., 0].T, deep)


def test_masks_may_be_by_colour(folder):
    colours = {"background": "#000000", "vessel": "#ff0000", "disc": [0, 128, 255]}
    describe(folder, labels=colours)
    mask = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 255]], np.uint8)[np.searchsorted([0, 128, 255], MASK)]
    expected = np.searchsorted([0, 128, 255], MASK)
    palette = Image.fromarray(mask).convert("P", palette=Image.Palette.ADAPTIVE)
    for one in (mask, palette):
        only(folder, None, one, ".png")
        np.testing.assert_array_equal(first(folder).label[:, :, 0].T, expected)
    mask[3, 4] = 0, 128, 254
    only(folder, None, mask, ".png")
    with pytest.raises(DataError, match=r"the colour #0080fe in .*a.png has no class: known .* #ff0000 vessel"):
        first(folder)
    only(folder, None, mask, ".jpg")
    with pytest.raises(DataError, match="JPEG, which changes colours"):
        first(folder)


def test_the_background_has_the_value_that_dataset_json_says(folder):
    describe(folder, labels={"background": 255, "cell": 0, "wall": 128})
    expected = np.array([1, 2, 0])[np.searchsorted([0, 128, 255], MASK)]
    np.testing.assert_array_equal(first(folder).label[:, :, 0].T, expected)
    describe(folder, labels={"cell": 0, "wall": 128})
    with pytest.raises(DataError, match="no label has the name background"):
        first(folder)


@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_black_and_white_masks_are_two_values(folder, values):
    describe(folder, labels={"background": values[0], "cell": values[1]})
    only(folder, None, Image.fromarray(MASK > 0), ".png")
    np.testing.assert_array_equal(first(folder).label[:, :, 0].T, MASK > 0)


def test_the_values_of_a_palette_are_its_indices(folder):
    describe(folder, labels={"background": 0, "cell": 1, "wall": 2})
    indices = np.searchsorted([0, 128, 255], MASK).astype(np.uint8)
    picture = Image.fromarray(indices, "L")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    only(folder, None, picture, ".png")
    np.testing.assert_array_equal(first(folder).label[:, :, 0].T, indices)


def test_jpeg_masks_of_two_values_are_read_with_a_note_and_others_refused(folder):
    square = np.zeros((20, 30), np.uint8)
    square[5:15, 8:24] = 255
    describe(folder, labels={"background": 0, "polyp": 255})
    path = only(folder, None, square, ".jpg")
    assert set(np.unique(np.asarray(Image.open(path)))) > {0, 255}
    np.testing.assert_array_equal(first(folder).label[:, :, 0].T, square > 0)
    assert "1 of 1 masks are JPEG" in read_cases(CONFIG, folder).notes[0]
    only(folder, None, np.dstack([square] * 3), ".jpg")
    np.testing.assert_array_equal(first(folder).label[:, :, 0].T, square > 0)
    (folder / "masks/a.jpg").rename(folder / "masks/a.png")  # what counts is the content
    assert "1 of 1 masks are JPEG" in read_cases(CONFIG, folder).notes[0]
    only(folder, None, np.where(square, square, 120).astype(np.uint8), ".jpg")
    with pytest.raises(DataError, match="JPEG with more values than 0 and 255"):
        first(folder)
    describe(folder)
    with pytest.raises(DataError, match="masks of more than two values"):
        first(folder)


def test_grey_pictures_among_coloured_ones_get_three_equal_channels_and_are_named(folder):
    save(folder / "images/p0_0.png", IMAGE[..., 0])
    case_set = read_cases(CONFIG, folder)
    assert len(case_set.channels) == 3
    assert case_set.notes == ("1 of 4 pictures are grey; their three channels are equal: p0_0",)
    assert (first(folder).image == IMAGE[..., 0].T[None, :, :, None]).all()


def test_opaque_alpha_is_dropped_and_transparency_refused(folder):
    alpha = np.full((20, 30, 1), 255, np.uint8)
    only(folder, np.concatenate([IMAGE, alpha], 2), None, ".png")
    np.testing.assert_array_equal(first(folder).image[..., 0].T, IMAGE)
    alpha[2, 2] = 254
    only(folder, np.concatenate([IMAGE, alpha], 2), None, ".png")
    with pytest.raises(DataError, match=r"a.png has transparent pixels"):
        first(folder)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_pictures_that_mean_something_else_than_their_pixels_are_refused(folder):
    describe(folder, labels={"background": 0, "cell": 255})
    mask = np.where(MASK, 255, 0).astype(np.uint8)
    for options, ending, message in (
        ({"exif": turned()}, ".jpg", "EXIF orientation 6"),
        ({"exif": turned()}, ".png", "EXIF orientation 6"),
        ({"save_all": True, "append_images": [Image.fromarray(IMAGE)] * 2}, ".tif", "holds 3 pages"),
        ({"save_all": True, "append_images": [Image.fromarray(255 - IMAGE)]}, ".png", "holds 2 pages"),
    ):
        only(folder, None, mask, ".png")
        (folder / "images/a.png").unlink()
        save(folder / f"images/a{ending}", IMAGE, **options)
        with pytest.raises(DataError, match=message):
            first(folder)
        (folder / f"images/a{ending}").unlink()
    only(folder, Image.fromarray(IMAGE).convert("CMYK"), mask, ".tif")
    with pytest.raises(DataError, match="colours of the kind CMYK: convert it to RGB"):
        first(folder)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_truncated_picture_is_named(folder, ending, part):
    describe(folder, labels={"background": 0, "cell": 255})
    only(folder, IMAGE, np.where(MASK, 255, 0).astype(np.uint8), ending)
    path = folder / part / f"a{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"cannot read .*{part}/a{ending}"):
        first(folder)


def test_what_does_not_fit_together_is_refused(folder):
    only(folder, None, MASK[:18], ".png")
    with pytest.raises(DataError, match=r"differ in shape: 30×20 in .*images/a.png, 30×18 in .*masks/a.png"):
        first(folder)
    only(folder, None, IMAGE, ".png")
    with pytest.raises(DataError, match="is in colour, but the classes have values"):
        first(folder)
    only(folder, None, MASK + np.uint8(1), ".png")
    with pytest.raises(DataError, match=r"label value 1 in .* has no class: .* 0 background, 128 cell, 255 wall"):
        first(folder)
    save(folder / "images/b.png", IMAGE)
    with pytest.raises(DataError, match=r"image without its mask: .*b.png \(expected .*masks/b.png\)"):
        read_cases(CONFIG, folder)
    (folder / "images/b.png").rename(folder / "images/a.bmp")
    with pytest.raises(DataError, match="would both be case a"):
        read_cases(CONFIG, folder)


@pytest.mark.parametrize("ending", ["_mask", "_segmentation"])
def test_a_mask_may_have_an_ending_of_its_own(folder, ending):
    for path in list((folder / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}{ending}.png"))
    assert len(read_cases(CONFIG, folder).cases) == 4


def test_nnunets_folders_of_pictures_are_read(folder):
    (folder / "images").rename(folder / "imagesTr")
    (folder / "masks").rename(folder / "labelsTr")
    for path in list((folder / "imagesTr").iterdir()):
        path.rename(path.with_name(f"{path.stem}_0000.png"))
    describe(folder, channel_names={"0": "R", "1": "G", "2": "B"}, file_ending=".png", numTraining=4)
    case_set = read_cases(CONFIG, folder)
    assert case_set.ids == ("p0_0", "p0_1", "p1_2", "p1_3")
    assert case_set.channels == ("R", "G", "B")
    save(folder / "imagesTr/p0_0_0001.png", IMAGE[..., 0])
    with pytest.raises(DataError, match=r"p0_0_0001.png is one channel of a picture"):
        read_cases(CONFIG, folder)


@pytest.mark.parametrize("by", ["json", "csv", "excel"])
def test_the_data_set_gives_split_and_patients(folder, by):
    part = {"p0_0": "train", "p0_1": "train", "p1_2": "validation", "p1_3": "tuning"}
    if by == "json":
        lists: dict[str, list[str]] = {}
        for id, name in part.items():
            lists.setdefault(name, []).append(id)
        describe(folder, split=lists, patients={id: id for id in part})
    else:
        comma = ";" if by == "excel" else ","
        rows = [
            ["image", "Patient", "age", "split"],
            *([f"images/{id}.png", id, "7", name] for id, name in part.items()),
        ]
        (folder / "dataset.csv").write_text("\n".join(comma.join(row) for row in rows), encoding="utf-8-sig")
    split = split_cases(read_cases(CONFIG, folder), CONFIG, 0)
    assert (split.train, split.validation, split.tuning) == (("p0_0", "p0_1"), ("p1_2",), ("p1_3",))


def test_a_patient_on_both_sides_of_a_given_split_is_refused(folder):
    describe(
        folder,
        split={"train": ["p0_0", "p1_2"], "validation": ["p0_1", "p1_3"]},
        patients={f"p{n // 2}_{n}": f"p{n // 2}" for n in range(4)},
    )
    with pytest.raises(DataError, match="has the patient 'p0' in training and in validation"):
        split_cases(read_cases(CONFIG, folder), CONFIG, 0)


def test_a_drawn_split_keeps_the_pictures_of_a_patient_together(folder):
    describe(folder, patients={f"p{n // 2}_{n}": n // 2 for n in range(4)})
    case_set = read_cases(CONFIG, folder)
    for seed in range(8):
        split = split_cases(case_set, CONFIG, seed)
        assert {id[:2] for id in split.train}.isdisjoint(id[:2] for id in split.validation)
        assert len(split.train) == len(split.validation) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.csv", "image,patients\nimages/p0_0.png,1\n", "unknown column 'patients' .did you mean 'patient'"),
        ("dataset.csv", "file\nimages/p0_0.png\n", "has no column `image`"),
        ("dataset.csv", "image,split\np0_0,train\np0_1,test\n", "the split 'test' is unknown: write train, validation"),
        ("dataset.csv", "image,split\np0_0,train\np0_1,\n", "gives no part of the split for p0_1"),
        ("dataset.csv", "image\np0_0\nimages/p0_0.png\n", r"p0_0.png and .*p0_0.png would both be case p0_0"),
        ("dataset.csv", "image\nlost\n", r"image is missing: .*lost .dataset.csv lists it"),
        ("dataset.csv", "image\n../secret.png\n", r"dataset.csv: ../secret.png is not a path inside"),
        ("dataset.csv", "image,mask\np0_0,gone.png\n", r"image without its mask: .*p0_0.png .expected .*gone.png"),
        ("dataset.json", {"patients": {"p9": "a"}}, "`patients` names p9, which is no case"),
        ("dataset.json", {"split": {"train": ["p0_0", "p0_0"]}}, "names the case 'p0_0' twice"),
        ("dataset.json", {"labels": {"background": 0, "ignore": 255}}, "`ignore` is not supported"),
        ("dataset.json", {"labels": {"background": 0, "both": [1, 2]}}, "is no colour such as"),
        ("dataset.json", {"labels": {"background": 0}}, "names no class but the background"),
        ("dataset.json", {"channel_names": {"0": "a", "1": "b"}}, "names 2 channels: a picture has 1"),
    ],
)
def test_descriptions_that_cannot_be_meant_are_refused(folder, name, content, message):
    if name == "dataset.json":
        describe(folder, **content)
    else:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_cases(CONFIG, folder)


def test_without_a_description_the_error_shows_one(folder):
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r'"labels": {"background": 0, "NAME1": 128, "NAME2": 255}'):
        read_cases(CONFIG, folder)
    only(folder, None, np.where(MASK, 255, 0).astype(np.uint8), ".png")
    case_set = read_cases(DataConfig(layout="pictures", classes=["polyp"]), folder)
    label = load_volume(case_set.cases[0], case_set).label
    np.testing.assert_array_equal(label[:, :, 0].T, MASK > 0)


def test_pictures_have_one_plane(folder):
    with pytest.raises(ValueError, match="a picture is one slice"):
        DataConfig(layout="pictures", axis="coronal")


def test_a_picture_is_prepared_as_the_same_pixels_in_a_volume_are(folder):
    case_set = read_cases(CONFIG, folder)
    mine = load_volume(case_set.cases[0], case_set)
    volumes = folder / "volumes"
    for kind, array in (("imagesTr", mine.image[0].astype(np.uint8)), ("labelsTr", mine.label)):
        (volumes / kind).mkdir(parents=True)
        nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), volumes / kind / "a.nii.gz")
    (volumes / "dataset.json").write_text('{"labels": {"background": 0, "cell": 1, "wall": 2}}')
    as_volume = DataConfig(image_size=32)
    theirs_set = read_cases(as_volume, volumes)
    theirs = Preprocessing.from_config(as_volume).apply(load_volume(theirs_set.cases[0], theirs_set))
    prepared = Preprocessing.from_config(CONFIG).apply(mine)
    np.testing.assert_array_equal(prepared.images[:, :1], theirs.images)
    np.testing.assert_array_equal(prepared.labels, theirs.labels)
    assert prepared.pixel_spacing is None


def test_a_picture_may_lack_a_colour_but_not_all(folder, capsys):
    green = IMAGE * np.array([0, 1, 0], np.uint8)
    only(folder, green, None, ".png")
    assert vitrim("data", "check", "pictures", folder) == 0
    only(folder, np.full_like(IMAGE, 7), None, ".png")
    assert vitrim("data", "check", "pictures", folder) == 2
    assert "is constant" in capsys.readouterr().out


def test_data_check_speaks_of_pixels(folder, capsys):
    (folder / "images/notes.txt").write_text("")
    assert vitrim("data", "check", "pictures", folder) == 0
    said = capsys.readouterr().out
    assert "shapes       30×20" in said
    assert "distances are in pixels" in said
    assert "pixels in 4 of 4 cases" in said
    assert "1 files in images are not read: expected .png" in said
    assert " mm" not in said
    save(folder / "masks/p1_3.png", MASK[:18])
    assert vitrim("data", "check", "pictures", folder) == 2
    assert "30×18" in capsys.readouterr().out
