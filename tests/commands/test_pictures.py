"""Networks on pictures: predict, evaluate, attention and study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.support import CLASSES, tiny_study, vitrim, write_checkpoint, write_image
from vitrim.config.schema import DataConfig
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.evaluation.segment import predict_slices
from vitrim.models.checkpoint import load_model

SIZES = ((40, 56), (33, 47), (64, 32))


def write_pictures(folder: Path, cases: int = 3) -> Path:
    """Write pictures in colour, of several sizes, with a bright square and a dark one."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(cases):
        label = np.zeros(SIZES[number % 3], np.uint8)
        label[3:15, 4:18] = 1
        label[18:30, 10:28] = 2
        image = rng.normal(110, 12, (*label.shape, 3)) + np.array([[0, 0, 0], [90, 0, 30], [-90, 0, -30]])[label]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"images/eye_{number}.png")
        Image.fromarray(np.array([0, 100, 200], np.uint8)[label]).save(folder / f"masks/eye_{number}.png")
    labels = {name: 100 * value for value, name in CLASSES.items()}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("network") / "network"
    return write_checkpoint(folder, in_chans=3, depth=2, data={"layout": "pictures"})


@pytest.mark.parametrize("name", ["transunet", "cats2d", "unetr2d"])
def test_every_network_writes_masks_on_the_pixels_of_its_pictures(name, pictures, tmp_path):
    options = {"backbone": "resnet10t"} if name == "cats2d" else {}
    checkpoint = write_checkpoint(tmp_path / "network", name, in_chans=3, data={"layout": "pictures"}, **options)
    out = tmp_path / "out"
    assert vitrim("predict", checkpoint, pictures / "images", "-o", out, "--labels", "--precision", "float32") == 0
    config = DataConfig(layout="pictures", image_size=32)
    case_set, preprocessing = read_cases(config, pictures), Preprocessing.from_config(config)
    for number, size in enumerate(SIZES):
        with Image.open(out / f"eye_{number}.png") as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "L", size[::-1])
            found = np.asarray(picture)
        prepared = preprocessing.apply(load_volume(case_set.case(f"eye_{number}"), case_set))
        labels = predict_slices(load_model(checkpoint), prepared.images)
        expected = preprocessing.restore(labels, prepared.record)[:, :, 0].T
        assert len(np.unique(expected)) > 1
        assert (found == expected).mean() > 0.999
    assert pd.read_csv(out / "volumes.csv")["ml"].isna().all()


def test_pictures_are_evaluated_in_pixels(network, pictures, tmp_path, capsys):
    assert vitrim("evaluate", network, "--data", pictures, "--out", tmp_path / "evaluation") == 0
    table = pd.read_csv(tmp_path / "evaluation/cases.csv")
    assert set(table["hd95_unit"]) == {"pixels"}
    assert "HD95 (pixels)" in capsys.readouterr().out


def test_a_predicted_mask_is_kept_only_for_its_network_and_picture(network, pictures, tmp_path, capsys):
    image = tmp_path / "eye.png"
    image.write_bytes((pictures / "images/eye_0.png").read_bytes())
    assert vitrim("predict", network, image, "-o", tmp_path / "mask.png", "--preview") == 0
    before = (tmp_path / "mask.png").read_bytes()
    assert vitrim("predict", network, image, "-o", tmp_path / "mask.png") == 0
    other = write_checkpoint(tmp_path / "other", in_chans=3, seed=1, data={"layout": "pictures"})
    assert vitrim("predict", other, image, "-o", tmp_path / "mask.png") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "mask.png").read_bytes() == before
    assert (tmp_path / "mask_preview.png").is_file()
    image.write_bytes((pictures / "images/eye_1.png").read_bytes())
    assert vitrim("predict", network, image, "-o", tmp_path / "mask.png", "--overwrite") == 0
    assert (tmp_path / "mask.png").read_bytes() != before
    assert not (tmp_path / "mask_preview.png").exists()  # it showed the other picture


def test_what_is_no_picture_or_no_place_for_one_is_refused(network, pictures, tmp_path, capsys):
    volume = write_image(tmp_path / "volume.nii.gz")
    image = pictures / "images/eye_0.png"
    for source, out, message in (
        (volume, tmp_path / "out", "is no picture"),
        (image, tmp_path / "mask.jpg", "ends in .png"),
        (image, tmp_path / "mask.nii.gz", "ends in .png"),
        (pictures, tmp_path / "out", "there is a folder"),
        (image, image, "would be replaced"),
    ):
        assert vitrim("predict", network, source, "-o", out) == 2
        assert message in capsys.readouterr().err
    grey = write_checkpoint(tmp_path / "volumes")
    assert vitrim("predict", grey, image, "-o", tmp_path / "out") == 2
    assert "was trained on volumes" in capsys.readouterr().err
    grey = write_checkpoint(tmp_path / "grey", data={"layout": "pictures"})
    assert vitrim("predict", grey, image, "-o", tmp_path / "out") == 2
    assert "is in colour, but grey pictures are expected" in capsys.readouterr().err


def test_two_pictures_never_share_a_file_of_results(network, pictures, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a_preview.png"):
        (tmp_path / "in" / name).write_bytes((pictures / "images/eye_0.png").read_bytes())
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "out", "--preview") == 2
    assert "two files would have the name" in capsys.readouterr().err
    (tmp_path / "in/a_preview.png").rename(tmp_path / "in/a.bmp")
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "out") == 2
    assert "would both be case a" in capsys.readouterr().err


def test_attention_on_pictures_has_no_millimetres(network, pictures, tmp_path):
    assert vitrim("attention", network, "--data", pictures, "--out", tmp_path / "attention") == 0
    measures = set(pd.read_csv(tmp_path / "attention/profile.csv")["measure"])
    assert {"distance_patches", "distance_pixels"} <= measures
    assert "distance_mm" not in measures


@pytest.mark.slow
def test_a_study_of_pictures_reports_pixels(tmp_path):
    data = write_pictures(tmp_path / "data", cases=9)
    study = tiny_study(tmp_path / "study.yaml", tries=0)
    content = yaml.safe_load(study.read_text())
    content["data"]["layout"] = "pictures"
    study.write_text(yaml.safe_dump(content))
    assert vitrim("study", study, "--data", data, "--out", tmp_path / "run") == 0
    assert set(pd.read_csv(tmp_path / "run/results.csv")["hd95_unit"]) == {"pixels"}
    report = (tmp_path / "run/report.md").read_text()
    assert "HD95, pixels" in report
    assert "per picture in 2D" in report
    assert "3D" not in report
    assert " mm" not in report
