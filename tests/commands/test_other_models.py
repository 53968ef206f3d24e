"""A model of another library goes from its own weights to a smaller, evaluated, exported one on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from monai.networks.nets import UNETR

import vitrim as package
from tests.support import tiny_study, vitrim, write_checkpoint
from vitrim.models.user_models import build_model

SIZES = "in_channels=1, out_channels=3, img_size=32, hidden_size=16, mlp_dim=16, num_heads=2, feature_size=4"
PLACE = f"monai.networks.nets:UNETR({SIZES}, spatial_dims=2)"
MODEL = ("--model", PLACE)


def build() -> UNETR:
    return eval(PLACE.split(":")[1])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """What MONAI's users have: a state dict. No class may win everywhere."""
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        logits = model(torch.randn(4, 1, 32, 32))
        model.get_parameter("out.conv.conv.bias").sub_(logits.mean((0, 2, 3)))
    torch.save(model.state_dict(), tmp_path / "unetr.pth")
    return tmp_path / "unetr.pth"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tiny_study(tmp_path / "tiny.yaml", data={"image_size": 32, "validation": 3})


def test_from_its_weights_to_a_smaller_evaluated_exported_network(weights, study, tiny_data_once, tmp_path, capsys):
    data, small = ("--data", tiny_data_once), tmp_path / "small"
    recover = ("--recover", "finetune", "--steps", 2)
    assert vitrim("compress", weights, *MODEL, *data, "--study", study, "--depth", 1, *recover, "-o", small) == 0
    assert "UNETR: 12 -> 1 blocks" in capsys.readouterr().out
    split = json.loads((small / "recovery.json").read_text())["split"]
    assert (len(split["train"]), len(split["validation"])) == (5, 3)

    against = ("--against", weights, "--study", study)
    assert vitrim("evaluate", small, *MODEL, *data, *against, "-o", tmp_path / "found") == 0
    cases = pd.read_csv(tmp_path / "found/cases.csv")
    assert set(cases["case"]) == set(split["validation"])  # the cases that recovery left out
    assert set(cases["role"]) == {"validation"}

    image = tiny_data_once / "imagesTr/case_000.nii.gz"
    onnx, exact = tmp_path / "small.onnx", ("--precision", "float32")
    assert vitrim("predict", small, image, "-o", tmp_path / "torch.nii.gz", *MODEL, *exact) == 0
    assert vitrim("export", small, "-o", onnx, *MODEL, "--data", image) == 0
    assert vitrim("predict", onnx, image, "-o", tmp_path / "onnx.nii.gz") == 0
    maps = [np.asanyarray(nibabel.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("torch", "onnx")]
    assert len(np.unique(maps[0])) > 1
    assert (maps[0] == maps[1]).mean() > 0.999
    assert vitrim("predict", onnx, image, "-o", tmp_path / "no.nii.gz", *MODEL) == 2
    assert "holds its network: leave --model out" in capsys.readouterr().err


def test_its_attention_and_exchange_are_measured(weights, study, tiny_data_once, tmp_path):
    options = ("--data", tiny_data_once, "--study", study, "--cases", 2, "--slices", 2)
    assert vitrim("attention", weights, *MODEL, *options, "-o", tmp_path / "found") == 0
    decision = json.loads((tmp_path / "found/decision.json").read_text())
    assert (decision["network"], decision["full"]) == ("UNETR (12 blocks)", 12)
    assert pd.read_csv(tmp_path / "found/profile.csv")["block"].nunique() == 12
    assert (tmp_path / "found/exchange.csv").is_file()
    assert (tmp_path / "found/untrained/profile.csv").is_file()


def test_a_dpt_of_smp_from_a_file_of_the_user(study, tiny_data_once, tmp_path, capsys):
    """It takes three channels, and has no size of its own: that of the study is its size."""
    pytest.importorskip("segmentation_models_pytorch")
    (tmp_path / "dpt.py").write_text(
        "import segmentation_models_pytorch as smp\n\ndef build():\n"
        '    return smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, classes=3, dynamic_img_size=True,\n'
        "        decoder_intermediate_channels=(8, 8, 8, 8), decoder_fusion_channels=8)\n"
    )
    model = ("--model", f"{tmp_path / 'dpt.py'}:build", "--study", study)
    torch.save(build_model(model[1]).state_dict(), tmp_path / "dpt.pth")
    options = ("--data", tiny_data_once, "--depth", 2, "--recover", "distil", "--steps", 1)
    assert vitrim("compress", tmp_path / "dpt.pth", *model, *options, "-o", tmp_path / "small") == 0
    small = json.loads((tmp_path / "small/model.json").read_text())["adapted"]
    assert (small["class"], small["kept"], small["images"]) == ("DPT", [1, 2], [3, 32, 32])
    found = ("--data", tiny_data_once, "-o", tmp_path / "found")
    assert vitrim("evaluate", tmp_path / "small", *model, *found, "--against", tmp_path / "dpt.pth") == 0


def test_in_python_a_function_builds_it(weights, study, tiny_data_once, tmp_path):
    small = tmp_path / "small"
    result = package.compress(weights, small, model=build, depth=2, study=study)
    assert result.summary["network"] == "UNETR"
    found = package.evaluate(small, tiny_data_once, tmp_path / "found", model=build, against=weights, study=study)
    assert found.change is not None
    again = package.compress(small, tmp_path / "one", model=build, depth=1)
    assert package.load_model(again.folder, into=build()).kept == (1,)


def test_what_does_not_go_together_is_said_in_one_line(weights, study, tiny_data_once, tmp_path, capsys):
    own, out = write_checkpoint(tmp_path / "own"), ("-o", tmp_path / "out")
    data, prepared = ("--data", tiny_data_once), ("--study", study)
    volumes = ("--model", f"monai.networks.nets:UNETR({SIZES}, spatial_dims=3)")
    torch.save(
        UNETR(1, 3, 32, hidden_size=16, mlp_dim=16, num_heads=2, feature_size=4).state_dict(), tmp_path / "3.pth"
    )
    other = tiny_study(tmp_path / "other.yaml", data={"image_size": 64, "validation": 3})
    for arguments, said in (
        (("compress", weights, "--depth", 3, *out), "--model"),
        (("compress", own, *MODEL, "--depth", 1, *out), "needs no --model"),
        (("compress", weights, *MODEL, "--depth", 3, "--decoder", "whole", *out), "UNETR keeps its decoder"),
        (("compress", weights, *MODEL, "--depth", "auto", *data, "--steps", 1, *out), "preparation.json"),
        (("evaluate", weights, *MODEL, *data, *out), "preparation.json"),
        (("evaluate", weights, *MODEL, *data, "--study", other, *out), "does not run on example images of shape"),
        (("evaluate", tmp_path / "3.pth", *volumes, *data, *prepared, *out), "takes volumes"),
        (("attention", "timm:test_vit", *MODEL, *data, *out), "leave --model out"),
        (("predict", weights, tiny_data_once / "imagesTr", "-o", tmp_path / "out", *MODEL), "preparation.json"),
        (
            ("predict", weights, data[1], "-o", tmp_path / "out", *MODEL, *prepared, "--precision", "int8"),
            "own networks, not",
        ),
        (("export", weights, "-o", tmp_path / "out.onnx", "--model", "nowhere.py:f"), "no such file: nowhere.py"),
    ):
        assert vitrim(*arguments) == 2, arguments
        error = capsys.readouterr().err.strip()
        assert said in error, error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["attention", "compress", "evaluate", "predict", "export"])
def test_the_help_says_that_code_runs(command, capsys):
    assert vitrim(command, "--help") == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "This runs the code of that module or file" in said
