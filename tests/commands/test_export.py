"""`vitrim export`: an ONNX file that predicts as its checkpoint does, or no file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from tests.support import vitrim, write_checkpoint, write_image
from vitrim.commands import export
from vitrim.inference.onnx_engine import KEY


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    image = write_image(path.with_name("real.nii.gz"))
    assert vitrim("export", checkpoint, "-o", path, "--data", image) == 0
    return path


def test_the_file_predicts_what_the_checkpoint_does_without_a_network_in_torch(checkpoint, exported, tmp_path):
    source = write_image(tmp_path / "in/a.nii.gz", seed=3).parent
    options = ("--probabilities", "--labels")
    assert vitrim("predict", checkpoint, source, "-o", tmp_path / "torch", *options, "--precision", "float32") == 0
    code = (
        "import sys; from vitrim.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'vitrim.models.network' not in sys.modules"
    )
    arguments = ["predict", exported, source, "-o", tmp_path / "onnx", *options]
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True,
        timeout=120,
        env={**environment, "HOME": str(home)},
    )
    assert not list(home.rglob("onnxruntime*"))  # where ONNX Runtime keeps its reports of use until they are sent
    one, other = (nib.load(tmp_path / name / "a.nii.gz") for name in ("torch", "onnx"))
    assert np.array_equal(one.dataobj, other.dataobj)
    chances = [nib.load(tmp_path / name / "a_probabilities.nii.gz").get_fdata() for name in ("torch", "onnx")]
    np.testing.assert_allclose(*chances, atol=1e-4)
    tables = [(tmp_path / name / "volumes.csv").read_text() for name in ("torch", "onnx")]
    assert tables[0] == tables[1]


def test_the_file_names_no_path_of_the_machine_that_wrote_it(exported):
    content = exported.read_bytes()
    for word in (b"site-packages", b"src/vitrim", str(Path(export.__file__).parent).encode()):
        assert word not in content


def test_it_is_one_file_that_says_what_it_is(checkpoint, exported):
    assert [path.name for path in exported.parent.iterdir() if "network" in path.name] == ["network.onnx"]
    model = onnx.load(exported)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [export.OPSET]
    batch, *rest = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param
    assert [n.dim_value for n in rest] == [1, 32, 32]
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["vitrim"])
    assert about["preparation"]["classes"] == {"0": "background", "1": "bright", "2": "dark"}
    assert about["network"]["name"] == "unetr2d"
    assert about["sha256"] == json.loads((checkpoint / "model.json").read_text())["sha256"]


def wrong_logits(engine, images):
    return engine.session.run(None, {"images": images})[0] + np.float32(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transunet", "cats2d"])
@pytest.mark.parametrize("depth", [12, 3])
def test_the_other_networks_are_exported_too(name, depth, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "network", name, depth=depth)
    assert vitrim("export", checkpoint, "-o", tmp_path / "out.onnx") == 0


def test_a_file_that_does_not_compare_is_not_written(checkpoint, tmp_path, capsys, monkeypatch):
    from vitrim.inference.onnx_engine import OnnxEngine

    monkeypatch.setattr(OnnxEngine, "__call__", lambda *a: torch.from_numpy(wrong_logits(*a)))
    assert vitrim("export", checkpoint, "-o", tmp_path / "out.onnx") == 2
    error = capsys.readouterr().err.strip()
    assert "random slices" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_with_int8_the_file_is_smaller_and_its_labels_are_checked(checkpoint, exported, tmp_path, capsys, monkeypatch):
    image = write_image(tmp_path / "a.nii.gz")
    arguments = ("export", checkpoint, "-o", tmp_path / "out.onnx", "--int8", "--data", image)
    monkeypatch.setattr(export, "AGREEMENT", 0.8)  # untrained, many labels hang by a thread
    assert vitrim(*arguments) == 0
    assert "real slices" in capsys.readouterr().out
    assert (tmp_path / "out.onnx").stat().st_size < exported.stat().st_size - 400_000
    assert vitrim("predict", tmp_path / "out.onnx", image, "-o", tmp_path / "out") == 0
    weights = [array for each in onnx.load(tmp_path / "out.onnx").graph.initializer
               if (array := onnx.numpy_helper.to_array(each)).dtype == np.int8]  # fmt: skip
    assert weights
    assert max(np.abs(array.astype(int)).max() for array in weights) <= 64  # no processor cuts their products
    monkeypatch.setattr(export, "AGREEMENT", 1.01)
    before = (tmp_path / "out.onnx").read_bytes()
    assert vitrim(*arguments, "--overwrite") == 2
    assert "of its labels are torch's" in capsys.readouterr().err
    assert (tmp_path / "out.onnx").read_bytes() == before


def test_a_file_that_this_machine_computes_wrongly_is_refused(checkpoint, exported, tmp_path, capsys, monkeypatch):
    image = write_image(tmp_path / "a.nii.gz")
    model = onnx.load(exported)
    kept = [each for each in model.metadata_props if each.key not in ("vitrim_answer", "vitrim_sha256")]
    answer = json.loads(next(each.value for each in model.metadata_props if each.key == "vitrim_answer"))
    for values in ([1.2 * value for value in answer], [float("nan"), *answer[1:]], answer[:-1]):
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        model.metadata_props.add(key="vitrim_answer", value=json.dumps(values))
        onnx.save(model, tmp_path / "wrong.onnx")
        assert vitrim("predict", tmp_path / "wrong.onnx", image, "-o", tmp_path / "out.nii.gz") == 2
        assert "export" in capsys.readouterr().err
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "older.onnx")  # as version 0.1.0 wrote it, in float32
    assert vitrim("predict", tmp_path / "older.onnx", image, "-o", tmp_path / "out.nii.gz") == 0
    model.graph.node[0].doc_string = "MatMulInteger"
    onnx.save(model, tmp_path / "older.onnx")
    assert vitrim("predict", tmp_path / "older.onnx", image, "-o", tmp_path / "again.nii.gz") == 2
    assert "cannot be checked" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_before_the_work(checkpoint, exported, tmp_path, capsys):
    image = write_image(tmp_path / "a.nii.gz")
    before = exported.read_bytes()
    for arguments, word in (
        ((checkpoint, exported), "exists"),
        ((checkpoint, tmp_path / "out.bin"), ".onnx"),
        ((checkpoint, tmp_path / "out.onnx", "--int8"), "--data"),
        ((tmp_path / "nowhere", tmp_path / "out.onnx"), "nowhere"),
        ((checkpoint, tmp_path / "out.onnx", "--data", tmp_path / "nothing"), "nothing"),
        ((checkpoint, tmp_path / "out.onnx", "--data", image, "--study", "synapse"), "224"),
    ):
        assert vitrim("export", arguments[0], "-o", *arguments[1:]) == 2
        error = capsys.readouterr().err.strip()
        assert word in error
        assert len(error.splitlines()) == 1
    assert exported.read_bytes() == before
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_is_said_what_to_install(missing, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    assert vitrim("export", checkpoint, "-o", tmp_path / "out.onnx") == 2
    assert "pip install 'vitrim[onnx]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_files_of_vitrim_export_are_predicted_with(exported, tmp_path, capsys, monkeypatch):
    image = write_image(tmp_path / "a.nii.gz")

    def refused(path: Path) -> str:
        assert vitrim("predict", path, image, "-o", tmp_path / "out") == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()
        return error

    capsys.readouterr()
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert "has no vitrim metadata" in refused(tmp_path / "foreign.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:-2000])
    assert "cut.onnx" in refused(tmp_path / "cut.onnx")
    foreign.metadata_props.add(key="vitrim", value="{}")
    onnx.save(foreign, tmp_path / "odd.onnx")
    assert "odd.onnx" in refused(tmp_path / "odd.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'vitrim[onnx]'" in refused(exported)


def test_without_a_preparation_no_file_is_written_and_a_study_gives_it(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "network")
    (checkpoint / "preparation.json").unlink()
    assert vitrim("export", checkpoint, "-o", tmp_path / "out.onnx") == 2
    assert "--study" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()
    (tmp_path / "study.yaml").write_text(
        "name: s\ndata: {image_size: 32, classes: [a, b]}\nnetworks: {unetr2d: {}}\ntraining: {steps: 1}"
    )
    assert vitrim("export", checkpoint, "-o", tmp_path / "out.onnx", "--study", tmp_path / "study.yaml") == 0
    image = write_image(tmp_path / "a.nii.gz")
    assert vitrim("predict", tmp_path / "out.onnx", image, "-o", tmp_path / "out", "--labels") == 0
    assert set(pd.read_csv(tmp_path / "out" / "volumes.csv")["structure"]) == {"a", "b"}


def test_a_file_with_a_flipped_bit_is_refused(exported, tmp_path, capsys):
    whole, rng = exported.read_bytes(), np.random.default_rng(0)
    for number in range(20):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        (tmp_path / f"{number}.onnx").write_bytes(damaged)
        image = write_image(tmp_path / "a.nii.gz")
        assert vitrim("predict", tmp_path / f"{number}.onnx", image, "-o", tmp_path / "labels.nii.gz") == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("lie", [{"num_classes": 4}, {"num_classes": 2}, {"image_size": [48, 48]}, {"in_chans": 2}])
def test_a_file_that_is_not_what_its_metadata_say_is_refused(exported, tmp_path, capsys, lie):
    model = onnx.load(exported)
    entry = next(entry for entry in model.metadata_props if entry.key == KEY)
    del model.metadata_props[1]  # the checksum; without it the file looks like an older one
    about = json.loads(entry.value)
    about["network"].update(lie)
    if "num_classes" in lie:
        about["preparation"]["classes"] = {str(n): f"class {n}" for n in range(lie["num_classes"])}
    if "image_size" in lie:
        about["preparation"]["data"]["image_size"] = lie["image_size"]
    entry.value = json.dumps(about)
    onnx.save(model, tmp_path / "lie.onnx")
    image = write_image(tmp_path / "a.nii.gz")
    assert vitrim("predict", tmp_path / "lie.onnx", image, "-o", tmp_path / "labels.nii.gz") == 2
    error = capsys.readouterr().err.strip()
    assert "metadata" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "labels.nii.gz").exists()
