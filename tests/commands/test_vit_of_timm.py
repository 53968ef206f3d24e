"""The commands follow the number of blocks of a ViT of timm, and say first what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import vitrim as package
from tests.support import SHORT, tiny_study, vitrim

NETWORKS = {"unetr2d": {"depths": [3]}}


@pytest.mark.slow
def test_a_study_searches_among_the_blocks_of_the_vit(tiny_data_once: Path, tmp_path: Path) -> None:
    file, out = tiny_study(tmp_path / "tiny.yaml", networks=NETWORKS, **SHORT), tmp_path / "out"
    assert vitrim("study", file, "--data", tiny_data_once, "--out", out, "--vit", "test_vit") == 0
    results = pd.read_csv(out / "results.csv")
    assert {6, 3} <= set(results["blocks"])
    assert results["blocks"].max() == 6
    decision = json.loads((out / "networks/unetr2d/decision.json").read_text())
    assert decision["full"] == 6
    assert max(value for value in decision["rules"].values() if value is not None) <= 6
    full = package.load_model(next((out / "trials").glob("unetr2d-6-*")))
    assert (full.config.vit, full.depth, full.taps) == ("test_vit", 6, (2, 3, 4, 6))
    assert "vit: test_vit" in (out / "report.md").read_text()


def test_a_single_network_is_trained_with_all_of_them(tiny_data_once: Path, tmp_path: Path) -> None:
    file = tiny_study(tmp_path / "tiny.yaml", networks=NETWORKS, **SHORT)
    package.train(file, tmp_path / "net", data=tiny_data_once, vit="test_vit")
    assert package.load_model(tmp_path / "net").depth == 6
    with pytest.raises(package.ConfigurationError, match="unetr2d has 1 to 6 blocks, not 7"):
        package.train(file, tmp_path / "other", data=tiny_data_once, vit="test_vit", depth=7)


@pytest.mark.parametrize("command", ["study", "train"])
def test_missing_data_are_named_before_weights_are_sought(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(names: list[str]) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("vitrim.models.pretrained.not_at_hand", asked)
    file = tiny_study(tmp_path / "tiny.yaml", networks=NETWORKS, **SHORT)
    options = ["--out", tmp_path / "out", "--vit", "vit_small_patch16_224", "--init", "pretrained"]
    assert vitrim(command, file, "--data", tmp_path / "nowhere", *options) == 2
    assert f"no such data folder: {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert vitrim(command, file, *options) == 2
    assert "needs data: give a folder with --data" in capsys.readouterr().err


def test_a_study_names_at_once_every_file_that_it_lacks(
    tiny_data_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitrim.models.timm_weights.hub.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("vitrim.models.timm_weights.hub.HF_HUB_CACHE", str(tmp_path))
    networks = {"transunet": {}, "unetr2d": {}, "cats2d": {"backbone": "resnet34"}}
    file = tiny_study(tmp_path / "tiny.yaml", networks=networks, **SHORT, size="base", width=1.0)
    assert vitrim("study", file, "--data", tiny_data_once, "--init", "pretrained", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    for name in ("vit_base_r50_s16_224.orig_in21k", "vit_base_patch16_224.augreg_in21k", "resnet34."):
        assert f"`hf download timm/{name}" in said
    assert "--init PATH, or --init scratch" in said
    assert not (tmp_path / "out").exists()
