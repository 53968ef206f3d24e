"""Folders of the Medical Segmentation Decathlon and of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support import vitrim
from vitrim.config.schema import DataConfig
from vitrim.data.cases import Volume
from vitrim.data.readers import read_cases
from vitrim.data.split import split_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, InputError

Write = Callable[..., Path]
CONFIG = DataConfig()
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def describe(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def first(folder: Path, config: DataConfig = CONFIG) -> Volume:
    case_set = read_cases(config, folder)
    return load_volume(case_set.cases[0], case_set)


def test_cases_and_classes_are_found(decathlon: Path) -> None:
    case_set = read_cases(CONFIG, decathlon)
    assert case_set.ids == ("case_0", "case_1", "case_2")
    assert case_set.classes == {0: "background", 1: "left", 2: "right"}
    volume = load_volume(case_set.cases[1], case_set)
    assert volume.image.shape == (1, 12, 10, 6)
    assert volume.image.dtype == np.float32
    assert volume.spacing == (1.0, 2.0, 3.0)
    assert volume.label is not None
    assert np.bincount(volume.label.ravel()).tolist() == [12 * 10 * 6 - 48 - 24, 48, 24]


def test_nnunet_version_1_has_one_file_per_channel(decathlon: Path, write: Write) -> None:
    for number in range(3):
        name = decathlon / "imagesTr" / f"case_{number}.nii.gz"
        name.rename(name.with_name(f"case_{number}_0000.nii.gz"))
        write(
            name.with_name(f"case_{number}_0001.nii.gz"),
            np.full((12, 10, 6), number, np.int16),
            AFFINE,
        )
    describe(decathlon, modality={"0": "T1", "1": "T2"})
    case_set = read_cases(CONFIG, decathlon)
    assert case_set.channels == ("T1", "T2")
    volume = load_volume(case_set.case("case_2"), case_set)
    assert volume.image.shape == (2, 12, 10, 6)
    assert (volume.image[1] == 2).all()


def test_nnunet_version_2_names_labels_first_and_lists_no_cases(decathlon: Path) -> None:
    for path in sorted((decathlon / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "file_ending": ".nii.gz",
    }
    (decathlon / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    case_set = read_cases(CONFIG, decathlon)
    assert case_set.ids == ("case_0", "case_1", "case_2")
    assert case_set.classes == {0: "background", 1: "left", 2: "right"}
    assert case_set.channels == ("CT",)


def test_channels_may_lie_along_a_fourth_axis(decathlon: Path, write: Write) -> None:
    for number in range(3):
        write(
            decathlon / "imagesTr" / f"case_{number}.nii.gz",
            np.ones((12, 10, 6, 4), np.float32),
            AFFINE,
        )
    describe(decathlon, modality={str(n): f"channel {n}" for n in range(4)})
    assert first(decathlon).image.shape == (4, 12, 10, 6)


def test_a_fourth_axis_of_length_one_is_dropped(decathlon: Path, write: Write) -> None:
    for part in ("imagesTr", "labelsTr"):
        write(decathlon / part / "case_0.nii.gz", np.ones((12, 10, 6, 1), np.uint8))
    volume = first(decathlon)
    assert volume.image.shape == (1, 12, 10, 6)
    assert volume.label is not None
    assert volume.label.shape == (12, 10, 6)


def test_label_values_with_gaps_become_classes_without(decathlon: Path, write: Write) -> None:
    label = np.zeros((12, 10, 6), np.uint8)
    label[0, 0, 0] = 4
    write(decathlon / "labelsTr" / "case_0.nii.gz", label, AFFINE)
    describe(decathlon, labels={"0": "background", "1": "edema", "2": "core", "4": "enhancing"})
    volume = first(decathlon)
    assert volume.label is not None
    assert volume.label.max() == 3
    assert read_cases(CONFIG, decathlon).classes[3] == "enhancing"


def test_without_dataset_json_the_configuration_names_the_classes(decathlon: Path) -> None:
    (decathlon / "dataset.json").unlink()
    case_set = read_cases(DataConfig(classes=["one", "two"]), decathlon)
    assert case_set.classes == {0: "background", 1: "one", 2: "two"}
    assert len(case_set.cases) == 3
    with pytest.raises(InputError, match="name the classes"):
        read_cases(CONFIG, decathlon)


def test_classes_that_contradict_the_data_set_are_refused(decathlon: Path) -> None:
    with pytest.raises(InputError, match=r"names the classes left, right, but the configuration names right, left"):
        read_cases(DataConfig(classes=["right", "left"]), decathlon)


def test_a_path_with_spaces_and_accents_works(decathlon: Path) -> None:
    there = decathlon.with_name("Aufnahmen für Ärzte, 2. Teil 数据")
    decathlon.rename(there)
    assert first(there).image.shape == (1, 12, 10, 6)


def test_files_that_a_mac_leaves_behind_are_no_cases(decathlon: Path) -> None:
    (decathlon / "imagesTr" / "._case_0.nii.gz").write_bytes(b"resource fork")
    describe(decathlon, training=[])
    assert len(read_cases(CONFIG, decathlon).cases) == 3


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data folder"):
        read_cases(CONFIG, tmp_path / "nowhere")
    with pytest.raises(InputError, match="no cases in"):
        read_cases(CONFIG, tmp_path)
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(InputError, match="no cases in"):
        read_cases(DataConfig(classes=["a"]), tmp_path)


@pytest.mark.parametrize("listed", [True, False])
def test_an_image_without_its_label_is_refused(decathlon: Path, listed: bool) -> None:
    (decathlon / "labelsTr" / "case_1.nii.gz").unlink()
    if not listed:
        describe(decathlon, training=[])
    with pytest.raises(InputError, match=r"image without its label: .*case_1"):
        read_cases(CONFIG, decathlon)


def test_a_reader_that_is_asked_to_go_on_lists_every_problem(decathlon: Path) -> None:
    (decathlon / "labelsTr" / "case_1.nii.gz").unlink()
    (decathlon / "imagesTr" / "case_2.nii.gz").unlink()
    case_set = read_cases(CONFIG, decathlon, strict=False)
    assert case_set.ids == ("case_0",)
    assert len(case_set.problems) == 2
    with pytest.raises(InputError, match="and 1 more"):
        read_cases(CONFIG, decathlon)


def test_regions_are_trained_as_their_exclusive_parts_and_evaluated_as_regions(decathlon: Path) -> None:
    label = np.zeros((12, 10, 6), np.uint8)
    label[:9], label[:6], label[:3] = 1, 3, 2
    for number in range(3):
        nib.save(nib.Nifti1Image(label, AFFINE), decathlon / "labelsTr" / f"case_{number}.nii.gz")
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}
    describe(decathlon, labels=labels, regions_class_order=[1, 3, 2])
    case_set = read_cases(CONFIG, decathlon)
    assert case_set.classes == {0: "background", 1: "rest of kidney", 2: "rest of masses", 3: "tumour"}
    assert "the regions are evaluated" in case_set.notes[0]
    found = load_volume(case_set.cases[0], case_set).label
    assert found is not None
    for name, values in labels.items():
        if name != "background":
            np.testing.assert_array_equal(np.isin(found, case_set.regions[name]), np.isin(label, values))


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"whole": [1, 2], "core": 2}, None, "has regions: whole, core. Give one value for each region in"),
        ({"whole": [1, 2], "core": 2}, [2, 1], "are not classes: give one value for each region"),
        ({"left": [1, 2], "right": [2, 3]}, [1, 3], "are not classes"),
        ({"whole": [1, 2], "core": "two"}, [1, 2], "'core': 'two' is neither a value nor a list of values"),
        ({"whole": [1, 2], "core": 2, "ignore": 3}, [1, 2], "`ignore` is not supported: give these voxels a class"),
        ({"left": 1, "ignore": 2}, None, "`ignore` is not supported: give these voxels a class"),
    ],
)
def test_regions_that_are_no_classes_and_ignored_voxels_are_refused(labels, order, message, decathlon: Path) -> None:
    describe(decathlon, labels={"background": 0, **labels}, regions_class_order=order)
    with pytest.raises(InputError, match=message):
        read_cases(CONFIG, decathlon)


def test_monais_validation_list_is_the_split(decathlon: Path) -> None:
    described = json.loads((decathlon / "dataset.json").read_text(encoding="utf-8"))
    describe(decathlon, training=described["training"][:2], validation=described["training"][2:], test=["a.nii.gz"])
    case_set = read_cases(CONFIG, decathlon)
    split = split_cases(case_set, CONFIG, 0)
    assert (split.train, split.validation) == (("case_0", "case_1"), ("case_2",))
    assert [line[:40] for line in case_set.unused] == ["the list 'test' in dataset.json is not u"]
    describe(decathlon, validation=described["training"][:1])
    with pytest.raises(InputError, match="would both be case case_0"):
        read_cases(CONFIG, decathlon)


def test_nnunets_cases_may_lie_elsewhere(decathlon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = decathlon.with_name("only a description")
    data.mkdir()
    names = {f"patient {n}": decathlon / "imagesTr" / f"case_{n}.nii.gz" for n in range(2)}
    cases = {
        id: {"images": [str(image)], "label": str(image).replace("imagesTr", "labelsTr")} for id, image in names.items()
    }
    content = {"labels": {"background": 0, "left": 1, "right": 2}, "channel_names": {"0": "CT"}, "dataset": cases}
    rewritten(data, json.dumps(content))
    case_set = read_cases(CONFIG, data)
    assert case_set.ids == ("patient 0", "patient 1")
    assert load_volume(case_set.cases[1], case_set).label is not None
    cases["patient 1"]["images"] = [str(decathlon / "gone.nii.gz")]
    rewritten(data, json.dumps(content))
    with pytest.raises(InputError, match=r"image is missing: .*gone.nii.gz \(dataset.json names it outside"):
        read_cases(CONFIG, data)
    monkeypatch.chdir(decathlon.parent)
    inside = {"image": str(decathlon / "imagesTr/case_0.nii.gz"), "label": str(decathlon / "labelsTr/case_0.nii.gz")}
    describe(decathlon, training=[inside])
    assert read_cases(CONFIG, Path(decathlon.name)).ids == ("case_0",)


def test_an_image_may_be_listed_channel_by_channel(decathlon: Path) -> None:
    entry = {"image": ["imagesTr/case_0.nii.gz", "imagesTr/case_1.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
    describe(decathlon, training=[entry], modality={"0": "T1", "1": "T2"})
    assert first(decathlon).image.shape[0] == 2


def test_nnunets_pictures_have_a_layout_of_their_own(decathlon: Path) -> None:
    describe(decathlon, training=[], file_ending=".png")
    with pytest.raises(InputError, match="use the layout pictures"):
        read_cases(CONFIG, decathlon)


def test_a_path_that_leaves_the_folder_is_refused(decathlon: Path) -> None:
    describe(decathlon, training=[{"image": "../../etc/passwd", "label": "./labelsTr/case_0.nii.gz"}])
    with pytest.raises(InputError, match="not a path inside the folder"):
        read_cases(CONFIG, decathlon)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labels": []}', '{"labels": {"0": "a"}, "modality": {"x": "CT"}}'])
def test_a_broken_dataset_json_is_refused(decathlon: Path, text: str) -> None:
    (decathlon / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_cases(CONFIG, decathlon)


def test_real_hippocampus_cases_are_read(shared: Path) -> None:
    case_set = read_cases(CONFIG, shared / "data" / "msd_hippocampus")
    assert len(case_set.cases) == 260
    assert case_set.classes == {0: "background", 1: "Anterior", 2: "Posterior"}
    volume = load_volume(case_set.case("hippocampus_003"), case_set)
    assert volume.shape == (34, 52, 35)
    assert volume.label is not None
    assert set(np.unique(volume.label).tolist()) == {0, 1, 2}


def test_cases_of_one_patient_are_told_by_their_ids(decathlon: Path) -> None:
    case_set = read_cases(DataConfig(patient=r"^(case)_"), decathlon)
    assert {case.patient for case in case_set.cases} == {"case"}
    with pytest.raises(InputError, match="does not match the case 'case_0'"):
        read_cases(DataConfig(patient=r"^sub-(\d+)"), decathlon)


def rewritten(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text, encoding="utf-8")


def test_files_of_one_name_in_two_folders_are_two_cases(decathlon: Path) -> None:
    described = json.loads((decathlon / "dataset.json").read_text(encoding="utf-8"))
    for kind in ("imagesTr", "labelsTr"):
        for number, site in enumerate(("basel", "zurich", "basel")):
            old = decathlon / kind / f"case_{number}.nii.gz"
            new = decathlon / kind / site / f"case_{number // 2}.nii.gz"
            new.parent.mkdir(exist_ok=True)
            old.rename(new)
    paths = ["basel/case_0.nii.gz", "zurich/case_0.nii.gz", "basel/case_1.nii.gz"]
    expected = {"basel_case_0", "zurich_case_0", "basel_case_1"}
    for entries in (None, [{"image": f"./imagesTr/{path}", "label": f"./labelsTr/{path}"} for path in paths]):
        rewritten(decathlon, json.dumps({**described, "training": entries or []}))
        assert set(read_cases(CONFIG, decathlon).ids) == expected


def test_a_case_that_is_listed_twice_is_refused(decathlon: Path) -> None:
    described = json.loads((decathlon / "dataset.json").read_text(encoding="utf-8"))
    again = {**described["training"][0], "label": described["training"][1]["label"]}
    for twice in (described["training"][0], again):
        rewritten(decathlon, json.dumps({**described, "training": [*described["training"], twice]}))
        with pytest.raises(InputError, match="would both be case case_0"):
            read_cases(CONFIG, decathlon)
    shared = {"image": "imagesTr/case_2.nii.gz", "label": described["training"][0]["label"]}
    rewritten(decathlon, json.dumps({**described, "training": [described["training"][0], shared]}))
    with pytest.raises(InputError, match=r"case_0.nii.gz belongs to two cases, case_0 and case_2"):
        read_cases(CONFIG, decathlon)


def test_two_files_that_would_be_one_case_are_refused(decathlon: Path) -> None:
    describe(decathlon, training=[])
    path = decathlon / "imagesTr" / "case_0.nii.gz"
    path.with_name("case_0.nii").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="would both be case case_0"):
        read_cases(CONFIG, decathlon)


def test_what_is_not_used_is_counted_and_named(decathlon: Path) -> None:
    assert read_cases(CONFIG, decathlon).unused == ()
    described = json.loads((decathlon / "dataset.json").read_text(encoding="utf-8"))
    rest = described["training"][2:]
    describe(decathlon, training=described["training"][:2], validation=[{"image": rest[0]["image"]}])
    (decathlon / "imagesTr" / "old.mgz").write_text("")
    unused = read_cases(CONFIG, decathlon).unused
    assert unused == (
        "the list 'validation' in dataset.json is not used (1 entries)",
        "1 files in imagesTr are not used, because dataset.json does not list them: case_2.nii.gz",
        "1 files in imagesTr are not read, because they have no format that vitrim reads: old.mgz",
        "1 files in labelsTr are not used, because dataset.json does not list them: case_2.nii.gz",
    )


def test_an_ending_in_capitals_is_an_ending(decathlon: Path) -> None:
    describe(decathlon, training=[])
    for kind in ("imagesTr", "labelsTr"):
        path = decathlon / kind / "case_1.nii.gz"
        path.rename(path.with_name("case_1.NII.GZ"))
    case_set = read_cases(CONFIG, decathlon)
    assert case_set.ids == ("case_0", "case_1", "case_2")
    assert load_volume(case_set.case("case_1"), case_set).label is not None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"0": "background", "1": "left", "1": "right"}', "the key '1' is given twice"),
        ('{"background": 0, "left": 1, "right": 1}', "label value 1 has two names, 'left' and 'right'"),
        ('{"0": "background", "1": "left", "2": "left"}', "two label values have the name 'left'"),
        ('{"background": 0, "left": true}', "not a plain class"),
        ('{"0": "background", "²": "left"}', "not a plain class"),
        ('{"0": "background", "99999999999": "left"}', "not a plain class"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(labels: str, message: str, decathlon: Path) -> None:
    described = json.loads((decathlon / "dataset.json").read_text(encoding="utf-8"))
    described["labels"] = "HERE"
    rewritten(decathlon, json.dumps(described).replace('"HERE"', labels))
    with pytest.raises(InputError, match=message):
        read_cases(CONFIG, decathlon)


def test_values_as_text_are_values(decathlon: Path) -> None:
    describe(decathlon, labels={"background": "0", "left": "1", "right": "2"})
    assert read_cases(CONFIG, decathlon).classes == {0: "background", 1: "left", 2: "right"}


def test_a_name_that_ends_in_four_digits_is_no_channel_where_its_label_has_the_name(decathlon, write):
    for old, new in (("case_0", "vert_0001"), ("case_1", "vert_0002"), ("case_2", "vert_0003")):
        for kind in ("imagesTr", "labelsTr"):
            (decathlon / kind / f"{old}.nii.gz").rename(decathlon / kind / f"{new}.nii.gz")
    description = json.loads((decathlon / "dataset.json").read_text())
    del description["training"]
    (decathlon / "dataset.json").write_text(json.dumps(description))
    assert read_cases(DataConfig(), decathlon).ids == ("vert_0001", "vert_0002", "vert_0003")


@pytest.mark.parametrize("name", ["imagesTr/../imagesTr/case_0.nii.gz", "./imagesTr//case_0.nii.gz", None])
def test_a_path_inside_the_folder_may_be_written_in_any_way(decathlon, name):
    description = json.loads((decathlon / "dataset.json").read_text())
    description["training"][0]["image"] = name or str(decathlon / "imagesTr" / "case_0.nii.gz")
    (decathlon / "dataset.json").write_text(json.dumps(description))
    assert read_cases(DataConfig(), decathlon).ids == ("case_0", "case_1", "case_2")


def test_absurd_labels_are_refused_before_memory_is_taken(decathlon):
    description = json.loads((decathlon / "dataset.json").read_text())
    for labels, words in (
        ({"background": 0, "left": 10**12}, "larger than 65535"),
        ({"background": 0, **{f"c{n}": n for n in range(1, 300)}}, "300 classes"),
    ):
        (decathlon / "dataset.json").write_text(json.dumps({**description, "labels": labels}))
        with pytest.raises(DataError, match=words):
            read_cases(DataConfig(), decathlon)


def test_findings_do_not_replace_the_description_of_the_data(decathlon, capsys):
    before = (decathlon / "dataset.json").read_bytes()
    assert vitrim("data", "check", "decathlon", decathlon, "--out", decathlon / "dataset.json") == 2
    assert "--out" in capsys.readouterr().err
    assert (decathlon / "dataset.json").read_bytes() == before
    for _ in range(2):  # findings replace findings
        assert vitrim("data", "check", "decathlon", decathlon, "--out", decathlon / "check.json") == 0
