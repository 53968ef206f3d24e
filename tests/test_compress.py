"""Truncating a checkpoint, to a depth or as a decision says."""

from __future__ import annotations

import json

import pytest
import torch

import vitrim as package
from tests.test_cli import vitrim


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = package.create_model("transunet", num_classes=3, image_size=64, size="micro", width=0.25)
    package.save_model(network, tmp_path / "network")
    return tmp_path / "network"


@pytest.fixture
def decision(checkpoint, tmp_path):
    network = package.load_model(checkpoint)
    profile = package.profile_attention(network, torch.randn(6, 1, 64, 64))
    package.decide_depth(profile).save(tmp_path / "decision.json")
    return tmp_path / "decision.json"


def test_the_small_network_keeps_its_weights_and_its_preparation(checkpoint, tmp_path, capsys):
    (checkpoint / "preparation.json").write_text("{}")
    assert vitrim("compress", checkpoint, "--depth", 3, "--out", tmp_path / "small") == 0
    small, full = package.load_model(tmp_path / "small"), package.load_model(checkpoint)
    assert small.depth == 3
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, full.state_dict()[name]), name
    assert (tmp_path / "small/preparation.json").is_file()
    assert "12 -> 3 blocks" in capsys.readouterr().out


def test_an_edited_decision_is_obeyed(checkpoint, decision, tmp_path):
    content = json.loads(decision.read_text())
    decision.write_text(json.dumps({**content, "depth": 5}))
    assert vitrim("compress", checkpoint, "--decision", decision, "--out", tmp_path / "small") == 0
    assert package.load_model(tmp_path / "small").depth == 5


@pytest.mark.parametrize(
    "options", [("--depth", 13), (), ("--decision", "none.json"), ("--depth", 3, "--decision", "x")]
)
def test_an_impossible_depth_is_refused_and_leaves_nothing(options, checkpoint, tmp_path, capsys):
    assert vitrim("compress", checkpoint, "--out", tmp_path / "small", *options) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "small").exists()


def test_a_decision_about_another_network_is_refused(checkpoint, decision, tmp_path, capsys):
    assert vitrim("compress", checkpoint, "--depth", 4, "--out", tmp_path / "four") == 0
    assert vitrim("compress", tmp_path / "four", "--decision", decision, "--out", tmp_path / "small") == 2
    assert "12 blocks" in capsys.readouterr().err
