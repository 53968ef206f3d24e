"""IBSR 18, EMIDEC and Synapse, in the forms in which they are distributed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from vitrim.config.reading import load_study
from vitrim.config.schema import DataConfig
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.readers.synapse import ORGANS
from vitrim.data.split import split_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import InputError

Write = Callable[..., Path]
IBSR = DataConfig(layout="ibsr18", axis="through-plane")
EMIDEC = DataConfig(layout="emidec")
SYNAPSE = DataConfig(layout="synapse")

BRAIN = np.zeros((16, 8, 16, 1), np.uint8)
BRAIN[4:12, 2:6, 4:12] = 3
BRAIN[5:7, 3:5, 5:7] = 1
BRAIN_AFFINE = np.diag([0.94, 1.5, 0.94, 1.0])


def ibsr(folder: Path, write: Write, image: str, label: str | None, cases: int = 3) -> Path:
    for number in range(1, cases + 1):
        name = f"IBSR_{number:02d}"
        write(folder / name / f"{name}{image}", BRAIN.astype(np.int16) * 40, BRAIN_AFFINE)
        if label:
            write(folder / name / f"{name}{label}", BRAIN, BRAIN_AFFINE)
    return folder


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("_ana_strip.nii.gz", "_segTRI_ana.nii.gz"),
        ("_ana.nii.gz", "_segTRI_fill_ana.nii.gz"),
        ("_ana_strip.nii", "_segTRI_ana.nii"),
        (".nii.gz", "_seg.nii.gz"),
    ],
)
def test_ibsr_is_read_in_every_release(tmp_path: Path, write: Write, image: str, label: str) -> None:
    case_set = read_cases(IBSR, ibsr(tmp_path / "IBSR", write, image, label))
    assert case_set.ids == ("IBSR_01", "IBSR_02", "IBSR_03")
    assert list(case_set.classes.values()) == ["background", "CSF", "gray matter", "white matter"]
    volume = load_volume(case_set.cases[0], case_set)
    assert volume.shape == (16, 8, 16)
    assert volume.label is not None
    assert np.bincount(volume.label.ravel()).tolist() == [16 * 8 * 16 - 256, 8, 0, 248]


def test_ibsr_as_analyze_takes_its_axes_as_they_are(tmp_path: Path) -> None:
    for name, array in (("IBSR_01_ana_strip", BRAIN.astype(np.int16) * 40), ("IBSR_01_segTRI_ana", BRAIN)):
        image = nib.AnalyzeImage(array, None)
        image.header.set_zooms((0.94, 1.5, 0.94, 1.0))
        (tmp_path / "images" / "analyze").mkdir(parents=True, exist_ok=True)
        nib.save(image, tmp_path / "images" / "analyze" / f"{name}.hdr")
    case_set = read_cases(IBSR, tmp_path)
    volume = load_volume(case_set.cases[0], case_set)
    assert volume.spacing == pytest.approx((0.94, 1.5, 0.94))
    assert len(Preprocessing.from_config(IBSR).apply(volume).images) == 8


def test_ibsr_prefers_the_stripped_brain(tmp_path: Path, write: Write) -> None:
    ibsr(tmp_path, write, "_ana.nii.gz", None)
    ibsr(tmp_path, write, "_ana_strip.nii.gz", "_segTRI_ana.nii.gz")
    write(tmp_path / "IBSR_01" / "IBSR_01_ana_brainmask.nii.gz", BRAIN)
    assert {case.images[0].name[7:] for case in read_cases(IBSR, tmp_path).cases} == {"_ana_strip.nii.gz"}


def test_ibsr_cases_without_labels_take_no_part_in_the_split(tmp_path: Path, write: Write) -> None:
    """The course release has 18 cases; 3 of them have no label. The other 15 are the cases of the paper."""
    ibsr(tmp_path / "Training_Set", write, ".nii.gz", "_seg.nii.gz", cases=15)
    for number in (16, 17, 18):
        name = f"IBSR_{number}"
        write(tmp_path / "Test_Set" / name / f"{name}.nii.gz", BRAIN.astype(np.int16), BRAIN_AFFINE)
    case_set = read_cases(IBSR, tmp_path)
    assert len(case_set.cases) == 18
    split = split_cases(case_set, load_study("ibsr18").data, seed=0)
    assert (len(split.train), len(split.validation)) == (10, 5)
    assert set(split.train) | set(split.validation) == {f"IBSR_{n:02d}" for n in range(1, 16)}


@pytest.mark.parametrize("orientation", ["RAS", "LIA", "PSR"])
def test_ibsr_is_cut_across_its_thick_side_whatever_the_header_calls_it(tmp_path: Path, orientation: str) -> None:
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
        ),
        (16, 8, 16),
    ) @ np.diag([0.94, 1.5, 0.94, 1.0])
    (tmp_path / "IBSR_01").mkdir()
    for end, array in (("ana_strip", BRAIN.astype(np.int16)), ("segTRI_ana", BRAIN)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / "IBSR_01" / f"IBSR_01_{end}.nii.gz")
    case_set = read_cases(IBSR, tmp_path)
    prepared = Preprocessing.from_config(IBSR).apply(load_volume(case_set.cases[0], case_set))
    assert len(prepared.images) == 8


def emidec(folder: Path, write: Write, cases: int = 4) -> Path:
    for number in range(1, cases + 1):
        name = f"Case_{'N' if number % 2 else 'P'}{number:03d}"
        label = np.zeros((20, 24, 3), np.uint8)
        label[8:14, 8:14] = 2
        label[10:12, 10:12] = 1
        if number % 2 == 0:
            label[8, 8:14], label[8, 10:12] = 3, 4
        write(folder / name / "Images" / f"{name}.nii.gz", label.astype(np.int16) * 30, np.diag([1.5, 1.5, 10, 1]))
        write(folder / name / "Contours" / f"{name}.nii.gz", label, np.diag([1.5, 1.5, 10, 1]))
    return folder


def test_the_cavity_counts_as_background(tmp_path: Path, write: Write) -> None:
    case_set = read_cases(EMIDEC, emidec(tmp_path / "emidec-dataset-1.0.1", write))
    assert case_set.ids == ("Case_N001", "Case_N003", "Case_P002", "Case_P004")
    volume = load_volume(case_set.case("Case_P002"), case_set)
    assert volume.label is not None
    assert (volume.label[10:12, 10:12] == 0).all()
    names = [case_set.classes[int(volume.label[place])] for place in ((8, 8, 0), (8, 10, 0), (9, 9, 0))]
    assert names == ["infarction", "no-reflow", "myocardium"]


def test_the_challenges_nested_regions_are_an_option(tmp_path: Path, write: Write) -> None:
    folder = emidec(tmp_path, write)
    assert read_cases(EMIDEC, folder).regions == {"myocardium": (1,), "infarction": (2,), "no-reflow": (3,)}
    nested = read_cases(EMIDEC.model_copy(update={"nested": True}), folder).regions
    assert nested == {"myocardium": (1, 2, 3), "infarction": (2, 3), "no-reflow": (3,)}


def release(folder: Path, lists: bool = True) -> Path:
    """Write two training cases of 3 slices and one test case of 4, in the form of the TransUNet release."""
    label = np.zeros((6, 5), np.float32)
    label[1, 2] = 8
    image = np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5)
    (folder / "train_npz").mkdir(parents=True)
    (folder / "test_vol_h5").mkdir()
    for case in (5, 6):
        for number in range(3):
            name = f"case{case:04d}_slice{number:03d}.npz"
            np.savez(folder / "train_npz" / name, image=image + number / 10, label=label)
    with h5py.File(folder / "test_vol_h5" / "case0001.npy.h5", "w") as file:
        file["image"], file["label"] = np.stack([image] * 4), np.stack([label] * 4)
    if lists:
        (folder / "lists_Synapse").mkdir()
        names = "".join(f"case{case:04d}_slice{number:03d}\n" for case in (5, 6) for number in range(3))
        (folder / "lists_Synapse" / "train.txt").write_text(names, encoding="utf-8")
        (folder / "lists_Synapse" / "test_vol.txt").write_text("case0001\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("lists", [True, False])
def test_slices_of_the_release_are_stacked_and_shown_as_they_are_stored(tmp_path: Path, lists: bool) -> None:
    case_set = read_cases(SYNAPSE, release(tmp_path / "Synapse", lists))
    assert case_set.classes[8] == "stomach"
    split = split_cases(case_set, load_study("synapse").data, seed=0)
    assert (split.train, split.validation) == (("case0005", "case0006"), ("case0001",))
    for id, slices in (("case0005", 3), ("case0001", 4)):
        volume = load_volume(case_set.case(id), case_set)
        assert volume.spacing is None
        prepared = Preprocessing.from_config(DataConfig(image_size=16, crop=(6, 5))).apply(volume)
        assert prepared.pixel_spacing is None
        plain = Preprocessing(Preprocessing.from_config(SYNAPSE).steps[:1]).apply(volume)
        assert plain.images.shape == (slices, 1, 6, 5)
        assert plain.images[0, 0, 0, 1] == pytest.approx(1 / 29)
        assert plain.labels is not None
        assert plain.labels[0, 1, 2] == 8


def test_raw_synapse_keeps_eight_of_thirteen_organs(tmp_path: Path, write: Write) -> None:
    values = np.arange(14, dtype=np.uint8).reshape(14, 1, 1)
    for number in [*range(1, 11), *range(21, 41)]:
        write(tmp_path / "Training" / "img" / f"img{number:04d}.nii.gz", values.astype(np.int16))
        write(tmp_path / "Training" / "label" / f"label{number:04d}.nii.gz", values)
    write(tmp_path / "Testing" / "img" / "img0061.nii.gz", values.astype(np.int16))
    case_set = read_cases(SYNAPSE, tmp_path)
    volume = load_volume(case_set.case("case0001"), case_set)
    assert volume.label is not None
    organs = [case_set.classes[int(n)] for n in volume.label.ravel()]
    assert organs[1:] == [
        *("spleen", "right kidney", "left kidney", "gallbladder", "background", "liver", "stomach", "aorta"),
        *("background", "background", "pancreas", "background", "background"),
    ]
    split = split_cases(case_set, load_study("synapse").data, seed=0)
    assert (len(split.train), len(split.validation)) == (18, 12)
    assert {"case0001", "case0038"} < set(split.validation)
    assert "case0061" not in split.train


def test_the_real_ct_has_its_organs_on_their_sides(shared: Path) -> None:
    """If the label order and the display are right, the liver is on the left of the image."""
    case_set = read_cases(DataConfig(), shared / "data" / "totalseg_example_ct")
    assert tuple(case_set.classes.values())[1:] == ORGANS
    prepared = Preprocessing.from_config(DataConfig(clip=(-125, 275))).apply(load_volume(case_set.cases[0], case_set))
    assert prepared.labels is not None
    rows, columns = {}, {}
    for index, name in case_set.classes.items():
        _, rows[name], columns[name] = np.argwhere(prepared.labels == index).mean(0)
    assert columns["liver"] < columns["aorta"] < columns["spleen"]
    assert columns["right kidney"] < columns["aorta"] < columns["left kidney"]
    assert rows["stomach"] < rows["left kidney"]


@pytest.mark.parametrize("name", ["ibsr18", "emidec", "synapse"])
def test_the_presets_are_the_papers(name: str) -> None:
    study = load_study(name)
    assert study.data.layout == name
    assert study.pretrained is True
    assert study.training.epochs == (100 if name == "emidec" else 80)
    assert (study.training.batch_size, study.training.learning_rate, study.training.weight_decay) == (8, 1e-4, 0)
    assert {network: depths.depths for network, depths in study.networks.items()} == {
        "transunet": [3, 1],
        "cats2d": [3],
        "unetr2d": [3],
    }
    backbones = {"ibsr18": "resnet50", "emidec": "resnet34", "synapse": "densenet121"}
    assert study.networks["cats2d"].backbone == backbones[name]


def read_all(config: DataConfig, folder: Path) -> None:
    case_set = read_cases(config, folder)
    for case in case_set.cases:
        load_volume(case, case_set)


def refused(config: DataConfig, folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_all(config, folder)
    assert "\n" not in str(caught.value)


def test_lists_that_name_missing_cases_are_refused(tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / "train_npz" / "case0005_slice001.npz").unlink()
    refused(SYNAPSE, folder, r"train\.txt names case0005_slice001, but there is no .*and 1 more")
    (folder / "lists_Synapse" / "test_vol.txt").write_text("case0001\ncase0099\n", encoding="utf-8")
    assert len(read_cases(SYNAPSE, folder, strict=False).problems) == 3


def test_a_case_that_lacks_a_slice_is_refused(tmp_path: Path) -> None:
    folder = release(tmp_path, lists=False)
    (folder / "train_npz" / "case0005_slice001.npz").unlink()
    refused(SYNAPSE, folder, "case0005 lacks slice 001")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    folder = release(tmp_path)
    objects = np.array([[print]], object)
    np.savez(folder / "train_npz" / "case0005_slice000.npz", image=objects, label=objects)
    refused(SYNAPSE, folder, r"cannot read .*case0005_slice000\.npz.*allow_pickle=False")


def test_an_npz_with_other_keys_is_refused(tmp_path: Path) -> None:
    folder = release(tmp_path)
    np.savez(folder / "train_npz" / "case0005_slice000.npz", picture=np.zeros((6, 5)))
    refused(SYNAPSE, folder, r"cannot read .*case0005_slice000\.npz: .*image is not a file")


def test_an_h5_with_other_keys_is_refused(tmp_path: Path) -> None:
    folder = release(tmp_path)
    with h5py.File(folder / "test_vol_h5" / "case0001.npy.h5", "w") as file:
        file["raw"] = np.zeros((4, 6, 5))
    refused(SYNAPSE, folder, r"case0001\.npy\.h5 has no 'image': it holds 'raw'")


def test_an_h5_that_promises_a_trillion_voxels_is_refused(tmp_path: Path) -> None:
    folder = release(tmp_path)
    with h5py.File(folder / "test_vol_h5" / "case0001.npy.h5", "w") as file:
        for key in ("image", "label"):
            file.create_dataset(key, (10_000, 10_000, 10_000), "f4", chunks=True)
    refused(SYNAPSE, folder, r"declares 1e\+12 voxels")


def test_an_h5_that_points_at_other_files_is_not_followed(tmp_path: Path) -> None:
    folder = release(tmp_path)
    path, other = folder / "test_vol_h5" / "case0001.npy.h5", tmp_path / "other.h5"
    voxels = np.ones((3, 8, 8), np.float32)
    with h5py.File(other, "w") as file:
        file["image"] = voxels
    (tmp_path / "raw").write_bytes(voxels.tobytes())
    layout = h5py.VirtualLayout(voxels.shape, np.float32)
    layout[...] = h5py.VirtualSource(str(other), "image", voxels.shape)

    def external(file: h5py.File) -> None:
        file["image"] = h5py.ExternalLink(str(other), "image")

    def virtual(file: h5py.File) -> None:
        file.create_virtual_dataset("image", layout)

    def outside(file: h5py.File) -> None:
        raw = [(str(tmp_path / "raw"), 0, voxels.nbytes)]
        file.create_dataset("image", voxels.shape, np.float32, external=raw)

    for make in (external, virtual, outside):
        with h5py.File(path, "w") as file:
            make(file)
            file["label"] = np.zeros(voxels.shape, np.uint8)
        refused(SYNAPSE, folder, "not followed")


@pytest.mark.parametrize("name", ["train_npz/case0005_slice000.npz", "test_vol_h5/case0001.npy.h5"])
def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path, name: str) -> None:
    folder = release(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(SYNAPSE, folder, "no regular file")


@pytest.mark.parametrize("name", ["train_npz/case0005_slice000.npz", "test_vol_h5/case0001.npy.h5"])
@pytest.mark.parametrize("content", [b"", b"dear doctor", b"PK\x03\x04 not a zip"])
def test_damaged_files_of_the_release_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = release(tmp_path)
    (folder / name).write_bytes(content)
    refused(SYNAPSE, folder, f"cannot read .*{Path(name).name}")


@pytest.mark.parametrize("config", [IBSR, EMIDEC, SYNAPSE])
def test_a_folder_of_another_layout_holds_no_cases(decathlon: Path, config: DataConfig) -> None:
    refused(config, decathlon, f"no cases in .*expected the layout '{config.layout}'")


@pytest.mark.parametrize("config", [IBSR, EMIDEC, SYNAPSE])
def test_a_folder_that_is_linked_into_itself_is_searched_once(tmp_path: Path, write: Write, config: DataConfig) -> None:
    if config is IBSR:
        ibsr(tmp_path, write, "_ana_strip.nii.gz", "_segTRI_ana.nii.gz")
    elif config is EMIDEC:
        emidec(tmp_path, write)
    else:
        release(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "nowhere")
    assert 3 <= len(read_cases(config, tmp_path).cases) <= 4


@pytest.mark.parametrize("config", [IBSR, EMIDEC, SYNAPSE])
def test_other_classes_than_the_data_sets_own_are_refused(decathlon: Path, config: DataConfig) -> None:
    refused(config.model_copy(update={"classes": ["brain"]}), decathlon, r"has the classes .* leave data\.classes out")


def test_files_that_no_case_uses_are_counted_and_named(tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / "old").mkdir()
    (folder / "old" / "case0099.npy.h5").write_bytes(b"")
    (line,) = read_cases(SYNAPSE, folder).unused
    assert line.startswith("1 files")
    assert "old/case0099.npy.h5" in line
