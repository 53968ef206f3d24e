"""The figure of a network's depth at a glance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.conftest import Opened
from vitrim.report.depth_chart import depth_figure
from vitrim.report.run import read_run


def panel(opened: Opened, number: int) -> Any:
    return opened.page.locator("#depth .pair").nth(number)


def test_the_figure_shows_proposal_order_margin_and_second_axis(opened: Opened) -> None:
    text = panel(opened, 1).locator("svg").first.text_content()
    for words in ("proposed and kept: 3", "margin of 5 %", "% of the full network", "transformer blocks"):
        assert words in text
    svg = panel(opened, 1).locator("svg").first
    assert svg.locator(".order-text").all_text_contents() == ["1"]
    assert svg.locator(".margin-band").count() == 1
    assert svg.locator("line.bar").count() == 3  # one interval with its two ends
    assert svg.locator("polyline.series-1, polyline.series-2").count() == 2
    lost = panel(opened, 2).locator("svg").first.text_content()
    assert "proposed: 3" in lost
    assert "kept: 12" in lost


def test_attention_distance_trained_and_untrained_stands_beside_it(opened: Opened) -> None:
    figures = panel(opened, 0).locator("figure")
    assert figures.count() == 2
    assert "Attention distance" in figures.nth(1).locator("figcaption").inner_text()
    svg = figures.nth(1).locator("svg")
    assert svg.locator("polyline.trained").count() == svg.locator("polyline.untrained").count() == 1
    left, right = (figures.nth(place).bounding_box() for place in (0, 1))
    assert left["y"] == pytest.approx(right["y"], abs=2)
    assert left["x"] + left["width"] <= right["x"]


def test_a_screen_reader_hears_dice_by_depth(opened: Opened, run: Path) -> None:
    rows = pd.read_csv(run / "results.csv").query("network == 'cats2d'")
    label = panel(opened, 1).locator("svg").first.get_attribute("aria-label")
    for _, row in rows.iterrows():
        assert f"{row['average_dice']:.3f} with {row['blocks']} block" in label


def test_depths_are_numbered_in_the_order_of_the_search(copy: Path) -> None:
    path = copy / "networks" / "unetr2d" / "decision.json"
    results = pd.read_csv(copy / "results.csv")
    more = [results.iloc[1].to_dict() | {"blocks": blocks, "role": "tried"} for blocks in (2, 1)]
    pd.concat([results, pd.DataFrame(more)]).to_csv(copy / "results.csv", index=False)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"order": [3, 2, 1]}))
    stored = read_run(copy)
    figure = depth_figure(stored, stored.networks[0])
    assert figure is not None
    assert "The search tried 3, 2 and 1 of 12 blocks, in this order." in figure.reads
    marks = [figure.svg.index(f'class="order-text">{number}<') for number in (1, 2, 3)]
    assert marks == sorted(marks)


def test_the_full_network_alone_has_no_figure(copy: Path) -> None:
    results = pd.read_csv(copy / "results.csv")
    results[results["blocks"] == 12].to_csv(copy / "results.csv", index=False)
    stored = read_run(copy)
    assert depth_figure(stored, stored.networks[0]) is None


def test_the_noise_floor_is_a_ring(copy: Path) -> None:
    results = pd.read_csv(copy / "results.csv")
    noise = results.iloc[0].to_dict() | {"role": "noise", "average_dice": 0.8}
    pd.concat([results, pd.DataFrame([noise])]).to_csv(copy / "results.csv", index=False)
    stored = read_run(copy)
    figure = depth_figure(stored, stored.networks[0])
    assert figure is not None
    assert "full network, another seed" in figure.svg


def test_a_depth_whose_dice_is_unknown_is_left_out(copy: Path) -> None:
    results = pd.read_csv(copy / "results.csv")
    results.loc[len(results)] = results.iloc[1].to_dict() | {"blocks": 2, "average_dice": None}
    results.to_csv(copy / "results.csv", index=False)
    stored = read_run(copy)
    figure = depth_figure(stored, stored.networks[0])
    assert figure is not None
    assert "with 3 blocks" in figure.svg
    assert "with 2 blocks" not in figure.svg
    results[results["blocks"] != 12].to_csv(copy / "results.csv", index=False)
    assert depth_figure(read_run(copy), stored.networks[0]) is None
