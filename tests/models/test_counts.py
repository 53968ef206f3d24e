"""The networks have the expected numbers of parameters and the savings of the paper. Meta tensors are used."""

from __future__ import annotations

import pytest

from vitrim.models.describe import count_macs, count_parameters
from vitrim.models.dry_run import without_data
from vitrim.models.factory import create_model
from vitrim.models.network import Network


def meta(name: str, **choices: object) -> Network:
    with without_data():
        return create_model(name, **{"num_classes": 4, **choices})  # type: ignore[arg-type]


def test_transunet_with_nine_classes_has_105277081_parameters_and_20222617_without_blocks() -> None:
    assert count_parameters(meta("transunet", num_classes=9)) == 105_277_081
    assert count_parameters(meta("transunet", num_classes=9, depth=0)) == 20_222_617


def test_the_releases_stem_has_as_many_parameters() -> None:
    assert count_parameters(meta("transunet", num_classes=9, stem="release")) == 105_277_081


def test_unetr_with_nine_classes_has_111816649_parameters() -> None:
    assert count_parameters(meta("unetr2d", num_classes=9)) == 111_816_649


def test_a_block_has_7087872_parameters() -> None:
    block = meta("transunet").blocks[0]
    assert sum(parameter.numel() for parameter in block.parameters()) == 7_087_872


@pytest.mark.parametrize(
    ("name", "backbone", "depth", "saved"),
    [
        ("transunet", "resnet50", 3, 60.59),
        ("transunet", "resnet50", 1, 74.06),
        ("unetr2d", "resnet50", 3, 75.13),
        ("cats2d", "resnet50", 3, 61.14),
        ("cats2d", "resnet34", 3, 65.43),
        ("cats2d", "densenet121", 3, 63.42),
    ],
)
def test_truncation_saves_the_papers_share_of_parameters(name: str, backbone: str, depth: int, saved: float) -> None:
    full = count_parameters(meta(name, backbone=backbone))
    truncated = count_parameters(meta(name, backbone=backbone, depth=depth))
    assert round(100 * (full - truncated) / full, 2) == saved


def test_a_vit_base_block_costs_what_arithmetic_says() -> None:
    tokens, dim = 196, 768
    linear = 12 * tokens * dim * dim  # query, key, value, output, and two MLP layers that are four times as wide
    attention = 2 * tokens * tokens * dim
    assert count_macs(meta("transunet")) - count_macs(meta("transunet", depth=11)) == linear + attention


def test_layers_of_a_cnn_behind_its_last_feature_do_not_count() -> None:
    network = meta("cats2d", backbone="mobilenetv3_small_050", size="micro", width=0.125, depth=1)
    assert count_parameters(network) < sum(parameter.numel() for parameter in network.parameters())
