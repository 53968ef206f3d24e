"""The slices of the report: ordered by the Dice of their case, with outlines and errors, and enlargeable."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.report.conftest import Opened
from vitrim.metrics.statistics import case_dice
from vitrim.report.gallery import galleries
from vitrim.report.images import EXTRA, MISSED, OUTLINES, WRONG_CLASS, error_map, outlines
from vitrim.report.run import read_run


def colours(url: str) -> np.ndarray:
    """Decode a data URL into RGBA (H, W, 4)."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


def rgb(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def shown_dice(run: Path) -> dict[str, list[float]]:
    """Return the Dice of the full network in the captions, by network, in the order of the page."""
    captions = {one.title: [each.tiles[2].caption for each in one.slices] for one in galleries(read_run(run))}
    return {title: [float(text.rsplit(" ", 1)[1]) for text in texts] for title, texts in captions.items()}


def test_the_best_case_is_never_below_the_worst(run: Path) -> None:
    found = shown_dice(run)
    assert set(found) == {"TransUNet", "2D CATS", "2D UNETR"}
    for values in found.values():
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert values[0] > values[2]


def test_the_shown_cases_are_best_median_and_worst_of_their_own_network(run: Path) -> None:
    cases = pd.read_csv(run / "cases.csv")
    for name, one in zip(("transunet", "cats2d", "unetr2d"), galleries(read_run(run)), strict=True):
        order = case_dice(cases[(cases["network"] == name) & (cases["blocks"] == 12)])
        titles = [each.title for each in one.slices]
        assert titles[0].startswith(f"Best of 8 cases: {order.index[0]}, slice")
        assert titles[1].startswith(f"Case 5 of 8 by Dice: {order.index[4]}, slice")
        assert titles[2].startswith(f"Worst of 8 cases: {order.index[7]}, slice")


def test_slices_of_an_older_study_are_ordered_too(copy: Path) -> None:
    with np.load(copy / "examples.npz") as stored:
        arrays = {name: stored[name] for name in stored if name != "network"}
    order = case_dice(pd.read_csv(copy / "cases.csv").query("blocks == 12")).index.tolist()
    arrays["case"] = np.array([order[2], order[3], order[0]])
    np.savez(copy / "examples.npz", **arrays)
    (values,) = shown_dice(copy).values()
    assert values == sorted(values, reverse=True)


def test_without_a_table_of_cases_slices_have_no_rank(copy: Path) -> None:
    (copy / "cases.csv").unlink()
    (one,) = galleries(read_run(copy))
    assert all(re.fullmatch(r"case_\d+, slice \d+", each.title) for each in one.slices)


def test_errors_are_missed_extra_or_of_another_class() -> None:
    reference, prediction = np.array([[0, 1, 1, 2]], np.uint8), np.array([[1, 0, 2, 2]], np.uint8)
    found = colours(error_map(prediction, reference))
    assert [pixel[:3].tolist() for pixel in found[0, :3]] == [rgb(EXTRA), rgb(MISSED), rgb(WRONG_CLASS)]
    assert found[0, 3, 3] == 0


def test_equal_outlines_are_all_visible() -> None:
    label = np.zeros((8, 8), np.uint8)
    label[2:6, 2:6] = 1
    found = colours(outlines([label, label, label]))
    there = {tuple(pixel) for pixel in found[found[..., 3] > 0][:, :3].tolist()}
    assert there == {tuple(rgb(colour)) for colour in OUTLINES}


def test_a_slice_shows_reference_outlines_and_errors_of_both_networks(opened: Opened) -> None:
    tiles = opened.page.locator(".slice").first.locator("figcaption").all_inner_texts()
    assert tiles[:2] == ["Reference", "Outlines"]
    assert re.fullmatch(r"Errors with 12 blocks; Dice of the case 0\.\d{3}", tiles[2])
    assert re.fullmatch(r"Errors with 1 block; Dice of the case 0\.\d{3}", tiles[3])


@pytest.mark.parametrize("width", [1400, 390])
def test_a_picture_is_enlarged_by_keyboard_and_closed_again(opened: Opened, width: int) -> None:
    page = opened.page
    with opened.seen(width):
        tile = page.locator(".slice .tile").nth(1)
        tile.locator("button").focus()
        page.keyboard.press("Enter")
        frame = page.locator("dialog .frame")
        assert frame.bounding_box()["width"] > 1.5 * tile.bounding_box()["width"]
        assert frame.bounding_box()["width"] <= width
        assert "Outlines" in page.inner_text("dialog")
        page.keyboard.press("ArrowRight")
        assert "Errors with 12 blocks" in page.inner_text("dialog")
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()
    assert opened.errors == []
