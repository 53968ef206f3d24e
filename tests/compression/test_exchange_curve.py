"""The exchange curve of a network on real slices: against labels, or against the network's own labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import vitrim as package
from tests.report.synthetic_run import losing
from vitrim.attention.exchange import without_exchange
from vitrim.attention.mean_maps import mean_maps
from vitrim.commands.provenance import prepared_data
from vitrim.compression.exchange_curve import ExchangeCurve
from vitrim.compression.measure_exchange import find_exchanging_blocks, measure_exchange
from vitrim.config.schema import DataConfig
from vitrim.data.cache import PreparedData
from vitrim.data.readers import read_cases
from vitrim.errors import DataError
from vitrim.evaluation.accuracy import evaluate_cases
from vitrim.hardware import Hardware
from vitrim.metrics.statistics import network_dice
from vitrim.models.network import Network
from vitrim.progress import Reporter

CPU = Hardware("cpu", "32-true")


@pytest.fixture(scope="module")
def data(tiny_data_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedData]:
    config = DataConfig(image_size=32)
    cases = read_cases(config, tiny_data_once)
    quiet = Reporter(Console(quiet=True))
    with prepared_data(config, cases, cases.ids[:3], tmp_path_factory.mktemp("curve") / "x", quiet) as prepared:
        yield prepared


@pytest.fixture(scope="module")
def network() -> Network:
    """Three blocks whose attention is far from uniform."""
    torch.manual_seed(0)
    settings = {"num_classes": 3, "image_size": 32, "size": "micro", "width": 0.125, "depth": 3, "in_chans": 1}
    network = package.create_model("unetr2d", **settings).eval()
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.mul_(20)
        logits = network(torch.randn(4, 1, 32, 32))
        network.get_parameter("head.bias").sub_(logits.mean((0, 2, 3)))
    return network


@pytest.fixture(scope="module")
def curve(network: Network, data: PreparedData) -> ExchangeCurve:
    torch.manual_seed(1)
    untrained = package.create_model("unetr2d", num_classes=3, image_size=32, size="micro", width=0.125, depth=3)
    return measure_exchange(network, 3, data, data.cache.ids, CPU, untrained=untrained)


@pytest.mark.parametrize(("where", "block", "off"), [("after", 1, (2, 3)), ("after", 0, (1, 2, 3)), ("alone", 2, (2,))])
def test_every_row_is_what_the_changed_network_gives(
    where: str, block: int, off: tuple[int, ...], curve: ExchangeCurve, network: Network, data: PreparedData
) -> None:
    with without_exchange(network, off):
        expected = evaluate_cases(network, data, data.cache.ids, CPU)
    table = curve.table.query("form == 'identity' and where == @where and block == @block")
    merged = table.merge(expected, on=["case", "class"], suffixes=("", "_expected"))
    assert len(merged) == len(expected) == 6
    for column in ("dice", "reference_voxels", "predicted_voxels"):
        assert merged[column].tolist() == pytest.approx(merged[f"{column}_expected"].tolist(), nan_ok=True)


def test_the_curve_holds_every_form_and_every_block(curve: ExchangeCurve, tmp_path: Path) -> None:
    assert curve.blocks == 3
    for form in ("identity", "constant", "uniform"):
        assert list(curve.changes(form)) == [0, 1, 2]  # type: ignore[arg-type]
    assert list(curve.changes("identity", "alone")) == [1, 2, 3]
    assert [len(heads) for heads in curve.content] == [4, 4, 4]
    curve.save(tmp_path)
    again = ExchangeCurve.load(tmp_path)
    assert again is not None
    pd.testing.assert_frame_equal(again.table, curve.table, rtol=0, atol=1e-6)
    assert list(pd.read_csv(tmp_path / "content.csv")) == ["block", "head", "content_dependence", "untrained"]
    for stored, measured in ((again.content, curve.content), (again.untrained_content, curve.untrained_content)):
        np.testing.assert_allclose(stored, measured, atol=1e-6)
    assert ExchangeCurve.load(tmp_path / "nothing") is None


def test_without_labels_the_untouched_labels_are_the_reference(network: Network, data: PreparedData) -> None:
    cache = data.cache

    class Unlabelled:
        ids = cache.ids

        @staticmethod
        def case(id: str) -> object:
            return replace(cache.case(id), reference=None, labels=None)

    unlabelled = replace(data, cache=Unlabelled())  # type: ignore[arg-type]
    found = measure_exchange(network, 3, unlabelled, cache.ids, CPU, forms=("identity",))
    assert found.agreement
    assert network_dice(found.untouched) == pytest.approx(1)
    assert set(found.table["form"]) == {"none", "identity"}
    assert "agreement with the untouched network's labels changes by" in found.sentence(0.05)


def test_attention_of_an_untrained_network_depends_less_on_the_image(curve: ExchangeCurve) -> None:
    assert len(curve.untrained_content) == 3
    assert np.mean(curve.untrained_content) < 0.1 * np.mean(curve.content)


def test_what_a_block_does_follows_from_the_three_cut_offs() -> None:
    curve = losing(identity=3, uniform=2, constant=1)
    assert curve.roles(0.05) == ["content", "fixed places", "pools", "nothing"]
    assert losing(identity=0, uniform=0, constant=0).roles(0.05) == ["nothing"] * 4
    assert losing(identity=2).roles(0.05) == ["exchange", "exchange", "nothing", "nothing"]


def test_the_blocks_that_must_exchange_are_enough_and_none_of_them_can_be_left_out(
    curve: ExchangeCurve, network: Network, data: PreparedData, tmp_path: Path
) -> None:
    ids, margin = data.cache.ids, 0.3
    found = find_exchanging_blocks(network, curve, data, ids, CPU, margin)
    found.save(tmp_path)
    again = ExchangeCurve.load(tmp_path)
    assert again is not None
    kept = again.exchanging(margin)
    assert kept is not None
    assert kept == found.exchanging(margin)
    assert len(kept) <= (curve.cutoff(margin) or 0)
    full = network_dice(evaluate_cases(network, data, ids, CPU))

    def share(off: set[int]) -> float:
        with without_exchange(network, off):
            return network_dice(evaluate_cases(network, data, ids, CPU)) / full

    others = {1, 2, 3} - set(kept)
    assert not others or share(others) > 1 - margin
    assert all(share({*others, block}) <= 1 - margin for block in kept)
    pd.testing.assert_series_equal(
        pd.Series({k: each.percent for k, each in again.changes().items()}),
        pd.Series({k: each.percent for k, each in curve.changes().items()}),
        atol=1e-3,
    )
    assert curve.exchanging(margin) is None or curve.cutoff(margin) == 0


def test_no_cases_are_refused(network: Network, data: PreparedData) -> None:
    with pytest.raises(DataError, match="needs cases"):
        measure_exchange(network, 3, data, (), CPU)


def test_content_dependence_is_zero_where_every_image_is_looked_at_alike(network: Network) -> None:
    image = torch.randn(1, 1, 32, 32)
    alike = mean_maps(network, [image.repeat(4, 1, 1, 1)])
    assert max(float(heads.max()) for heads in alike.content) == pytest.approx(0, abs=1e-6)
    different = mean_maps(network, [torch.randn(8, 1, 32, 32), torch.randn(8, 1, 32, 32)])
    assert all((heads > 0.001).all() and (heads < 1).all() for heads in different.content)
    assert different.maps[1].shape == (4, 4, 4)
    assert torch.allclose(different.maps[1].sum(-1), torch.ones(4, 4), atol=1e-5)
