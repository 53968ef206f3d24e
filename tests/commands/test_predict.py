"""`vitrim predict`: what lies beside an image lies on its grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage

import vitrim as package
from tests.support import AFFINE, needs_x86, vitrim, write_checkpoint, write_image
from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.volumes import load_volume
from vitrim.evaluation.segment import predict_slices
from vitrim.inference.inputs import find_inputs


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def expected_labels(checkpoint: Path, image: Path, **data: object) -> np.ndarray:
    """What `evaluate` would compute."""
    about = CaseSet("files", image.parent, (), {0: "background"}, {0: 0})
    preparation = Preprocessing.from_config(DataConfig.model_validate({"image_size": 32, **data}))
    prepared = preparation.apply(load_volume(Case("case", (image,), None), about))
    return preparation.restore(predict_slices(package.load_model(checkpoint), prepared.images), prepared.record)


def describe(image: nib.Nifti1Image) -> None:
    """A header as scanners write them: both forms, with different codes, units, a scale, and a comment."""
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=2)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"knee of a friend"
    image.header["cal_max"] = 400
    image.header.set_slope_inter(2.5, -10)


def test_a_label_map_has_the_images_grid_and_header(checkpoint, tmp_path):
    image = nib.load(write_image(tmp_path / "knee.nii.gz", change=describe))
    assert (
        vitrim("predict", checkpoint, tmp_path / "knee.nii.gz", "-o", tmp_path / "out.nii.gz", "--precision", "float32")
        == 0
    )
    found = nib.load(tmp_path / "out.nii.gz")
    assert found.shape == image.shape
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(found.affine, image.affine)
    for form in ("qform", "sform"):
        matrix, code = getattr(image, f"get_{form}")(coded=True)
        own, own_code = getattr(found, f"get_{form}")(coded=True)
        assert code == own_code
        np.testing.assert_allclose(own, matrix, atol=1e-5)
    for field in ("descrip", "xyzt_units", "pixdim"):
        assert np.array_equal(found.header[field], image.header[field]), field
    raw = nib.Nifti1Header.from_fileobj(nib.openers.Opener(tmp_path / "out.nii.gz"), check=False)
    assert (raw["scl_slope"], raw["scl_inter"], raw["cal_max"]) == (1, 0, 0)
    assert np.array_equal(voxels(tmp_path / "out.nii.gz"), expected_labels(checkpoint, tmp_path / "knee.nii.gz"))
    assert len(np.unique(voxels(tmp_path / "out.nii.gz"))) == 3


@pytest.mark.parametrize("data", [{"axis": "coronal", "crop": (12, 40)}, {"axis": 0, "clip": (-100, 100)}])
def test_the_preparation_beside_the_checkpoint_is_followed(data, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "network", data=data)
    image = write_image(tmp_path / "in/a.nii.gz")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--precision", "float32") == 0
    assert np.array_equal(voxels(tmp_path / "out/a.nii.gz"), expected_labels(checkpoint, image, **data))


def test_scaled_as_the_public_transunet_code_does_it_the_label_map_is_that_codes(tmp_path):
    data = {"axis": 2, "clip": (-200, 200), "normalize": "unit", "scaling": "zoom"}
    checkpoint = write_checkpoint(tmp_path / "network", data=data)
    image = write_image(tmp_path / "a.nii.gz")
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "out.nii", "--precision", "float32") == 0
    network = package.load_model(checkpoint)
    scaled = ((voxels(image).clip(-200, 200) + 200) / 400).astype(np.float32)
    found = voxels(tmp_path / "out.nii")
    for n in range(5):  # its utils.test_single_volume, slice by slice
        taken = torch.from_numpy(ndimage.zoom(scaled[..., n], (32 / 20, 32 / 24), order=3))
        with torch.no_grad():
            out = torch.argmax(torch.softmax(network(taken[None, None]), dim=1), dim=1)[0].numpy()
        expected = ndimage.zoom(out, (20 / 32, 24 / 32), order=0)
        assert (found[..., n] == expected).mean() > 0.995  # a tie may fall to either side
    other = expected_labels(checkpoint, image, **{**data, "scaling": "linear"})
    assert (found == other).mean() < 0.99


@pytest.mark.parametrize("shape", [(20, 24, 2), (2, 24, 20), (20, 24, 1), (20, 24, 5, 1), (20, 24)])
def test_thin_volumes_and_single_slices_keep_their_shape(shape, checkpoint, tmp_path):
    image = write_image(tmp_path / "thin.nii.gz", shape)
    shape = nib.load(image).shape
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "out.nii", "--probabilities") == 0
    assert nib.load(tmp_path / "out.nii").shape == shape
    assert nib.load(tmp_path / "out_probabilities.nii.gz").shape == (*(*shape, 1, 1)[:3], 3)


def test_probabilities_are_on_the_grid_and_what_was_cut_away_is_background(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "network", data={"axis": 2, "crop": (32, 32)})
    write_image(tmp_path / "in/a.nii.gz", (40, 44, 5))
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--probabilities") == 0
    image = nib.load(tmp_path / "out/a_probabilities.nii.gz")
    chances, labels = voxels(tmp_path / "out/a_probabilities.nii.gz"), voxels(tmp_path / "out/a.nii.gz")
    assert chances.shape == (40, 44, 5, 3)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.affine, nib.load(tmp_path / "in/a.nii.gz").affine)
    np.testing.assert_allclose(chances.sum(axis=3), 1, atol=1e-5)
    inside = np.zeros(labels.shape, bool)
    inside[4:36, 6:38] = True
    assert (chances[~inside] == (1, 0, 0)).all()
    assert np.array_equal(chances.argmax(axis=3), labels)
    assert (chances[inside].max(axis=1) < 1).all()


def test_volumes_are_counted_in_millilitres(checkpoint, tmp_path):
    write_image(tmp_path / "in/a.nii.gz")
    write_image(tmp_path / "in/b.nii.gz", affine=np.eye(4), change=lambda image: image.header.set_xyzt_units("unknown"))
    image = nib.load(tmp_path / "in/b.nii.gz")
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.header.set_xyzt_units("unknown")
    nib.save(image, tmp_path / "in/b.nii.gz")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--labels") == 0
    table = pd.read_csv(tmp_path / "out/volumes.csv")
    assert list(table.columns) == ["case", "label", "structure", "voxels", "ml"]
    assert table[["case", "structure"]].to_numpy().tolist() == [[c, s] for c in "ab" for s in ("bright", "dark")]
    labels = voxels(tmp_path / "out/a.nii.gz")
    assert table["voxels"].tolist()[:2] == [(labels == 1).sum(), (labels == 2).sum()]
    voxel = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    np.testing.assert_allclose(table["ml"][:2], table["voxels"][:2] * voxel, atol=1e-3)
    assert table["ml"][2:].isna().all(), "a header without a spacing says nothing about millilitres"


def test_a_header_with_two_voxel_sizes_is_named_and_one_of_them_taken(checkpoint, tmp_path, capsys):
    """As in ACDC: the sform gives 1 mm, pixdim gives the size."""

    def contradict(image):
        image.set_sform(np.eye(4), 1)
        image.header["pixdim"][1:4] = (1.316, 1.316, 10)

    write_image(tmp_path / "in/a.nii.gz", change=contradict)
    write_image(tmp_path / "in/b.nii.gz", affine=1000 * AFFINE, change=lambda image: image.header.set_xyzt_units(3))
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--labels") == 0
    table = pd.read_csv(tmp_path / "out/volumes.csv")
    sizes = [1.316 * 1.316 * 10 / 1000] * 2 + [abs(np.linalg.det(AFFINE[:3, :3])) / 1000] * 2
    np.testing.assert_allclose(table["ml"], table["voxels"] * sizes, rtol=1e-3, atol=1e-3)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "note: a: its header gives two voxel sizes, 1 × 1 × 1 mm in the sform and 1.316 × 1.316 × 10 mm" in said
    assert "pixdim was taken" in said
    assert "note: b" not in said


def test_a_preview_is_a_picture_in_colour(checkpoint, tmp_path):
    write_image(tmp_path / "in/a.nii.gz")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--preview") == 0
    with Image.open(tmp_path / "out/a_preview.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 200
    assert (np.ptp(pixels, axis=2) > 50).mean() > 0.02


def test_channels_in_several_files_or_in_a_fourth_axis_are_one_case(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "network", in_chans=2)
    parts = [write_image(tmp_path / f"in/knee_000{n}.nii.gz", seed=n) for n in range(2)]
    stacked = nib.Nifti1Image(np.stack([voxels(path) for path in parts], axis=3), nib.load(parts[0]).affine)
    nib.save(stacked, tmp_path / "in/whole.nii.gz")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["knee.nii.gz", "whole.nii.gz"]
    assert np.array_equal(voxels(tmp_path / "out/knee.nii.gz"), voxels(tmp_path / "out/whole.nii.gz"))
    assert vitrim("predict", checkpoint, parts[0], "-o", tmp_path / "one.nii.gz") == 0
    assert np.array_equal(voxels(tmp_path / "one.nii.gz"), voxels(tmp_path / "out/whole.nii.gz"))


def test_a_network_of_three_channels_takes_grey_images(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "network", in_chans=3)
    write_image(tmp_path / "in/a_0000.nii.gz")
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_a_number_at_the_end_of_a_name_is_a_channel_only_where_it_counts_from_zero(tmp_path):
    for name in ("a_0000", "patient_0003", "patient_0004", "single_0007", "plain"):
        write_image(tmp_path / f"{name}.nii.gz")
    for number in range(9):
        write_image(tmp_path / f"many_{number:04d}.nii.gz")
    names = [case.name for case in find_inputs(tmp_path, channels=1).cases]
    many = [f"many_{number:04d}" for number in range(9)]
    assert names == ["a", *many, "patient_0003", "patient_0004", "plain", "single_0007"]


def test_the_batch_size_changes_nothing(checkpoint, tmp_path):
    image = write_image(tmp_path / "a.nii.gz")
    for batch in (1, 3):
        assert vitrim("predict", checkpoint, image, "-o", tmp_path / f"{batch}.nii", "--batch", batch) == 0
    assert np.array_equal(voxels(tmp_path / "1.nii"), voxels(tmp_path / "3.nii"))


@needs_x86
def test_in_8_bit_integers_nearly_all_labels_are_the_same_and_results_are_kept_apart(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "network", width=0.5)
    image, out = write_image(tmp_path / "knee.nii.gz"), tmp_path / "out.nii.gz"
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "float.nii.gz") == 0
    assert vitrim("predict", checkpoint, image, "-o", out, "--precision", "int8") == 0
    assert 0.95 < np.mean(voxels(out) == voxels(tmp_path / "float.nii.gz")) < 1
    capsys.readouterr()
    for others in (("--precision", "float32"), ("--precision", "int8", "--batch", 3)):
        assert vitrim("predict", checkpoint, image, "-o", out, *others) == 2
        assert "another precision" in capsys.readouterr().err


def test_the_device_is_the_one_that_was_asked_for(checkpoint, tmp_path, capsys, monkeypatch):
    image = write_image(tmp_path / "knee.nii.gz")
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "cpu.nii.gz", "--device", "cpu") == 0
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "tpu.nii.gz", "--device", "tpu") == 2
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    capsys.readouterr()
    for command in (
        ("predict", checkpoint, image, "-o", tmp_path / "gpu.nii.gz"),
        ("evaluate", checkpoint, "--data", tmp_path, "-o", tmp_path / "evaluation"),
        ("attention", checkpoint, "--data", tmp_path, "-o", tmp_path / "attention"),
        ("compress", checkpoint, "--depth", 1, "-o", tmp_path / "small"),
        ("study", "demo", "-o", tmp_path / "run"),
        ("train", "demo", "-o", tmp_path / "trained"),
    ):
        assert vitrim(*command, "--device", "gpu") == 2, command
        error = capsys.readouterr().err.strip()
        assert "torch finds no GPU" in error
        assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu.nii.gz", "knee.nii.gz"]


def test_a_precision_that_is_not_to_be_had_is_refused(checkpoint, tmp_path, capsys):
    image = write_image(tmp_path / "knee.nii.gz")
    (tmp_path / "network.onnx").touch()
    for network, precision, word in ((checkpoint, "fp4", "auto, float32, tf32, bf16, fp16, int8"),
                                     (tmp_path / "network.onnx", "int8", "--int8")):  # fmt: skip
        assert vitrim("predict", network, image, "-o", tmp_path / "out.nii.gz", "--precision", precision) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "out.nii.gz").exists()


def test_an_imported_checkpoint_takes_its_preparation_from_a_study(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "network")
    (checkpoint / "preparation.json").unlink()
    image = write_image(tmp_path / "a.nii.gz")
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "out.nii") == 2
    assert "--study" in capsys.readouterr().err
    (tmp_path / "study.yaml").write_text(
        "name: s\ndata: {image_size: 32, axis: coronal, classes: [a, b]}\nnetworks: {unetr2d: {}}\ntraining: {steps: 1}"
    )
    options = ("--study", tmp_path / "study.yaml", "--labels")
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "out.nii", *options, "--precision", "float32") == 0
    assert np.array_equal(voxels(tmp_path / "out.nii"), expected_labels(checkpoint, image, axis="coronal"))
    assert pd.read_csv(tmp_path / "out_volumes.csv")["structure"].tolist() == ["a", "b"]
    assert vitrim("predict", checkpoint, image, "-o", tmp_path / "no.nii", "--study", "synapse") == 2
    assert "224" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_number_of_volumes(checkpoint, tmp_path, monkeypatch):
    from vitrim.inference import predictor as run

    alive, peak = set(), []

    class Watched(run.Loaded):
        def __init__(self, *content):
            super().__init__(*content)
            alive.add(id(self))
            peak.append(len(alive))

        def __del__(self):
            alive.discard(id(self))

    load = run.load_input
    monkeypatch.setattr(run, "load_input", lambda *a: Watched(*vars(load(*a)).values()))
    for number in range(8):
        write_image(tmp_path / f"in/{number}.nii.gz", seed=number)
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out") == 0
    assert len(peak) == 8
    assert max(peak) <= 4


def test_cases_read_by_several_readers_are_those_of_one(checkpoint, tmp_path):
    for number in range(5):
        write_image(tmp_path / "in" / f"knee_{number}.nii.gz", seed=number)
    for readers in (1, 3, 9):
        out = tmp_path / f"out{readers}"
        assert vitrim("predict", checkpoint, tmp_path / "in", "-o", out, "--labels", "--readers", readers) == 0
        for path in sorted((tmp_path / "out1").iterdir()):
            assert path.read_bytes() == (out / path.name).read_bytes(), path.name
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "out", "--readers", 0) == 2
