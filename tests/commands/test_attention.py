"""`vitrim attention` and `vitrim import`, as a user calls them."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vitrim as package
from tests.support import vitrim
from vitrim.config.schema import DataConfig
from vitrim.files import write_json


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = package.create_model("unetr2d", num_classes=3, image_size=64, size="micro", width=0.25, depth=4)
    package.save_model(network, tmp_path / "network")
    data = DataConfig(image_size=64).model_dump(mode="json")
    classes = {"0": "background", "1": "bright", "2": "dark"}
    write_json(tmp_path / "network" / "preparation.json", {"data": data, "classes": classes})
    return tmp_path / "network"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures é"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture {number}.png")
    return folder


@pytest.mark.usefixtures("rendered_figures")
def test_a_checkpoint_is_profiled_on_a_data_set(checkpoint, tiny_data_once, tmp_path, capsys):
    out = tmp_path / "out"
    assert vitrim("attention", checkpoint, "--data", tiny_data_once, "--out", out, "--slices", 1, "--html") == 0
    said = capsys.readouterr().out
    for name in (
        "profile.json",
        "profile.csv",
        "attention_rule.json",
        "decision.json",
        "exchange.csv",
        "content.csv",
        "figures/globality.pdf",
        "figures/maps.png",
        "explorer.html",
    ):
        assert (out / name).stat().st_size > 0
        assert name in said
    profile = pd.read_csv(out / "profile.csv")
    assert set(profile["block"]) == {1, 2, 3, 4}
    assert profile["case"].nunique() == 8
    decision = json.loads((out / "decision.json").read_text())
    assert decision["verdict"] == "not shown"
    assert decision["depth"] == max(decision["rules"]["exchange"], 1)
    assert "no smaller network was trained" in said
    exchange = pd.read_csv(out / "exchange.csv")
    assert set(exchange["block"]) == {0, 1, 2, 3, 4}
    assert set(exchange["against"]) == {"labels"}


def test_a_timm_model_is_profiled_on_pictures(pictures, tmp_path):
    out = tmp_path / "out"
    model = "timm:test_vit.r160_in1k"
    assert vitrim("attention", model, "--data", pictures, "--out", out, "--weights", "none") == 0
    assert pd.read_csv(out / "profile.csv")["case"].nunique() == 6


def test_what_cannot_be_looked_at_is_refused_in_one_line(checkpoint, pictures, tiny_data_once, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for source, data, options, word in (
        ("timm:no_such_model", pictures, (), "no_such_model"),
        ("timm:test_vit", tmp_path / "empty", ("--weights", "none"), "no pictures"),
        ("timm:test_vit", pictures, ("--weights", tmp_path / "none.pth"), "none.pth"),
        (tmp_path / "nothing", tiny_data_once, (), "nothing"),
        (checkpoint, tmp_path / "nowhere", (), "nowhere"),
        (checkpoint, tiny_data_once, ("--head", "min"), "head"),
        (checkpoint, tiny_data_once, ("--measure", "beauty"), "beauty"),
        (checkpoint, tiny_data_once, ("--study", "demo"), "96"),
    ):
        assert vitrim("attention", source, "--data", data, "--out", out, *options) == 2
        error = capsys.readouterr().err.strip()
        assert word in error
        assert len(error.splitlines()) == 1
        assert not out.exists()


def test_only_what_can_be_imported_is(tmp_path, capsys):
    (tmp_path / "file.pth").write_bytes(b"not a checkpoint")
    assert vitrim("import", "swin", tmp_path / "file.pth", "-o", tmp_path / "out") == 2
    assert "swin" in capsys.readouterr().err
    assert vitrim("import", "transunet", tmp_path / "file.pth", "-o", tmp_path / "out") == 2
    assert "file.pth" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Bomb:
    """Pickled, it makes a folder where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_would_run_code_is_not_imported(tmp_path, capsys):
    for name, save in (("new.pth", torch.save), ("old.pth", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        save({"model": Bomb(tmp_path / "exploded")}, tmp_path / name)
        assert vitrim("import", "transunet", tmp_path / name, "-o", tmp_path / "out") == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert not (tmp_path / "exploded").exists()
        assert not (tmp_path / "out").exists()
