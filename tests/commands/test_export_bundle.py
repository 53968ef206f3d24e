"""`vitrim export --bundle`: a MONAI bundle that gives the label maps of `vitrim predict`, or no bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser, verify_net_in_out

from tests.support import vitrim, write_checkpoint, write_image
from vitrim.config.schema import DataConfig
from vitrim.data.cases import Volume
from vitrim.data.preprocessing import Preprocessing
from vitrim.inference.monai_transforms import to_volume

PREPARATIONS = [
    {},
    {"axis": "coronal", "crop": [24, 18], "normalize": "unit", "clip": [-200, 200]},
    {"axis": 1, "scaling": "zoom"},
]


def segmented(bundle: Path, source: Path, out: Path) -> None:
    """Run the pieces of the bundle's inference as MONAI's evaluator does, without it."""
    config = ConfigParser()
    config.read_config(bundle / "configs/inference.json")
    config["bundle_root"], config["dataset_dir"], config["output_dir"] = str(bundle), str(source), str(out)
    network, inferer, after = (config.get_parsed_content(name) for name in ("network", "inferer", "postprocessing"))
    for item in config.get_parsed_content("dataset"):
        item["pred"] = inferer(item["image"][None].to(config.get_parsed_content("device")), network)[0]
        after(item)


def same_labels(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        a, b = nib.load(one / name), nib.load(other / name)
        assert np.array_equal(a.dataobj, b.dataobj)
        assert len(np.unique(a.dataobj)) > 1
        np.testing.assert_allclose(a.affine, b.affine, atol=1e-4)


@pytest.mark.parametrize("data", PREPARATIONS, ids=["default", "cropped", "zoomed"])
def test_a_bundle_gives_the_label_maps_of_predict(data, tmp_path):
    network = write_checkpoint(tmp_path / "network", data=data)
    write_image(tmp_path / "in/a.nii.gz")
    write_image(tmp_path / "in/b.nii.gz", shape=(26, 30, 7), seed=1, affine=np.diag([-1, 1, 3, 1]))
    assert vitrim("export", network, "-o", tmp_path / "bundle", "--bundle") == 0
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "vitrim", "--precision", "float32") == 0
    segmented(tmp_path / "bundle", tmp_path / "in", tmp_path / "monai")
    same_labels(tmp_path / "vitrim", tmp_path / "monai")


def test_a_bundle_takes_the_channels_that_its_network_takes(tmp_path):
    network = write_checkpoint(tmp_path / "network", in_chans=2)
    for channel in (0, 1):
        write_image(tmp_path / f"in/a_000{channel}.nii.gz", seed=channel)
    assert vitrim("export", network, "-o", tmp_path / "bundle", "--bundle") == 0
    assert vitrim("predict", network, tmp_path / "in", "-o", tmp_path / "vitrim", "--precision", "float32") == 0
    segmented(tmp_path / "bundle", tmp_path / "in", tmp_path / "monai")
    (found,) = (tmp_path / "monai").iterdir()
    assert np.array_equal(nib.load(found).dataobj, nib.load(tmp_path / "vitrim/a.nii.gz").dataobj)


def test_monais_own_runner_runs_it(checkpoint, tmp_path):
    pytest.importorskip("ignite")
    write_image(tmp_path / "in/a.nii.gz")
    bundle = tmp_path / "bundle"
    assert vitrim("export", checkpoint, "-o", bundle, "--bundle") == 0
    config = bundle / "configs/inference.json"
    places = ["--bundle_root", bundle, "--dataset_dir", tmp_path / "in", "--output_dir", tmp_path / "monai"]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *places]
    subprocess.run(list(map(str, command)), check=True, timeout=300, capture_output=True)
    assert vitrim("predict", checkpoint, tmp_path / "in", "-o", tmp_path / "vitrim", "--precision", "float32") == 0
    same_labels(tmp_path / "vitrim", tmp_path / "monai")
    verify_net_in_out(  # MONAI's check that the network takes and returns what the metadata say
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(config),
        device="cpu",
        bundle_root=str(bundle),
    )


def test_it_says_what_it_holds_and_names_no_case_of_the_study(finished_study, tmp_path):
    network = next((finished_study / "trials").iterdir())
    assert vitrim("export", network, "-o", tmp_path / "bundle", "--bundle") == 0
    about = json.loads((tmp_path / "bundle/configs/metadata.json").read_text())
    assert about["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background",
        "1": "bright",
        "2": "dark",
    }
    assert about["network_data_format"]["inputs"]["image"]["num_channels"] == 1
    texts = [path.read_text() for path in (tmp_path / "bundle").rglob("*") if path.suffix in (".json", ".md")]
    assert not any("case_0" in text or str(tmp_path) in text for text in texts)


def test_what_is_there_already_is_not_lost(checkpoint, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    assert vitrim("export", checkpoint, "-o", tmp_path / "mine", "--bundle", "--overwrite") == 2
    assert "no bundle of vitrim's" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"
    assert vitrim("export", checkpoint, "-o", tmp_path / "bundle", "--bundle") == 0
    assert vitrim("export", checkpoint, "-o", tmp_path / "bundle", "--bundle") == 2
    assert vitrim("export", checkpoint, "-o", tmp_path / "bundle", "--bundle", "--overwrite") == 0


@pytest.mark.parametrize("option", [("--int8",), ("--data", "x"), ("--model", "a:b")])
def test_options_of_the_other_export_are_refused(checkpoint, option, tmp_path, capsys):
    assert vitrim("export", checkpoint, "-o", tmp_path / "bundle", "--bundle", *option) == 2
    assert "leave out --model, --data and --int8" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("data", [*PREPARATIONS, {"axis": "sagittal", "crop": [40, 40]}])
def test_the_affine_of_the_slices_says_where_they_lie(data):
    """An image whose voxels hold their own place: after preparation the affine gives what the pixels hold."""
    shape = (32, 32, 32)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float32)
    affine = np.array([[0.0, -1.5, 0, 20], [1.2, 0, 0, -30], [0, 0, -4.0, 7], [0, 0, 0, 1]])
    config = DataConfig.model_validate({"image_size": 64, **data, "normalize": "none", "clip": None})
    prepared = Preprocessing.from_config(config).apply(Volume(places, None, affine, None))
    matrix = to_volume(prepared.record)
    middle = np.array([16, 30, 33])
    expected = (matrix @ [*middle, 1])[:3]
    np.testing.assert_allclose(prepared.images[16, :, 30, 33], expected, atol=0.02)
