"""Tests of the page in a browser: it shows the stored values, and every control works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import Opened
from vitrim.attention.decision import stored_rule

GRID = (8, 8)
EXACT_TO = 0.25
"""Largest error of the attention distance of one patch at 4 bits, in patches. The page states the exact error."""
UNIFORM = float(np.hypot(*(np.subtract.outer(axis, axis) for axis in np.divmod(np.arange(64), 8))).mean())
"""Attention distance of uniform attention."""


def choose(page: Any, **controls: str) -> None:
    """Set controls of the explorer by their names."""
    for name, value in controls.items():
        page.select_option(f"#explorer [name='{name.replace('_', '-')}']", value)


def start(page: Any) -> None:
    """Set the explorer to its first state: first network, full depth, first slice, average head, middle patch."""
    choose(page, network="0")
    page.wait_for_selector("#explorer[data-state^='TransUNet']")
    choose(page, view="patch", kind="attention", depth="12", slice="0", head="0", block="1", scale="own")
    big = page.locator("[data-part=big]")
    if "Held" in words(page):
        big.click()
    big.focus()
    page.keyboard.press("Home")
    for key in ["ArrowDown"] * 4 + ["ArrowRight"] * 4:
        page.keyboard.press(key)


def state(page: Any) -> list[str]:
    """Return network, blocks, slice, kind, head, block and patch."""
    return page.get_attribute("#explorer", "data-state").split()


def words(page: Any) -> str:
    return page.inner_text("[data-part=words]")


def shown_distance(page: Any) -> list[float]:
    """Return the distance column of the table next to the image, by block."""
    return [float(text) for text in page.locator("[data-part=measures] tr td:nth-child(2)").all_inner_texts()]


def pixels(page: Any) -> str:
    """Return the contents of the large canvas as a data URL."""
    return page.eval_on_selector("[data-part=big]", "canvas => canvas.toDataURL()")


def stored(run: Path, network: str, blocks: int, index: int, head: int, rolled: bool = False) -> np.ndarray:
    """Return the attention distance of every patch by block, (blocks, N), by its definition, from the stored maps."""
    with np.load(run / "networks" / network / "explorer.npz") as file:
        if head:
            maps = np.stack([file[f"heads_{blocks}_{block}"][head - 1] for block in range(1, blocks + 1)])
        else:
            maps = file[f"mean_{blocks}"][index]
    maps = maps.astype(float)
    maps /= maps.sum(axis=-1, keepdims=True)
    if rolled:
        product = np.eye(maps.shape[-1])
        for block in range(blocks):
            product = (maps[block] + np.eye(len(product))) / 2 @ product
            maps[block] = product
    y, x = np.divmod(np.arange(GRID[0] * GRID[1]), GRID[1])
    far = np.hypot(y[:, None] - y, x[:, None] - x)
    return (maps * far).sum(axis=-1)


def test_the_page_opens_without_a_complaint_and_asks_the_network_for_nothing(browser: Any, run: Path) -> None:
    one = Opened(browser, run / "report.html")
    one.page.wait_for_timeout(200)
    assert one.errors == []
    assert one.asked == []
    one.context.close()


@pytest.mark.parametrize(
    ("blocks", "index", "head", "rolled"),
    [(12, 0, 0, False), (12, 2, 0, False), (3, 1, 0, False), (12, 0, 2, False), (3, 0, 3, False), (12, 1, 0, True)],
)
def test_what_a_patch_is_shown_to_look_at_is_what_was_stored(
    opened: Opened, run: Path, blocks: int, index: int, head: int, rolled: bool
) -> None:
    page = opened.page
    start(page)
    choose(page, depth=str(blocks), slice=str(index))
    if rolled or head:
        choose(page, **({"kind": "rollout"} if rolled else {"head": str(head)}))
    expected = stored(run, "transunet", blocks, index, head, rolled)
    for _ in range(3):
        patch = int(state(page)[-1])
        assert shown_distance(page) == pytest.approx(expected[:, patch].tolist(), abs=EXACT_TO)
        page.locator("[data-part=big]").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
    page.wait_for_selector("[data-part=measures]:not(:has-text('…'))")
    means = [float(text) for text in page.locator("[data-part=measures] tr td:nth-child(3)").all_inner_texts()]
    assert means == pytest.approx((expected.mean(axis=1) / UNIFORM).tolist(), abs=0.015)


def test_the_stated_error_holds(opened: Opened, run: Path) -> None:
    page = opened.page
    start(page)
    note = page.inner_text("[data-part=note]")
    limit = float(re.search(r"off by at most (\d\.\d+)", note)[1])  # type: ignore[index]
    expected = stored(run, "transunet", 12, 0, 0)
    page.locator("[data-part=big]").focus()
    page.keyboard.press("Home")
    for _ in range(GRID[1]):
        difference = np.abs(np.array(shown_distance(page)) - expected[:, int(state(page)[-1])])
        assert difference.max() <= limit + 0.006  # the page shows two decimals
        page.keyboard.press("ArrowRight")


def test_arrow_keys_move_the_patch_and_stop_at_the_edge(opened: Opened) -> None:
    page = opened.page
    start(page)
    assert state(page)[-1] == str(4 * 8 + 4)
    for key, patch in (("ArrowLeft", 35), ("ArrowUp", 27), ("ArrowRight", 28), ("ArrowDown", 36), ("Home", 0)):
        page.keyboard.press(key)
        assert state(page)[-1] == str(patch)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert state(page)[-1] == "0"
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    assert state(page)[-1] == "63"
    assert "row 8, column 8" in words(page)


def test_page_keys_and_the_small_pictures_choose_the_block(opened: Opened) -> None:
    page = opened.page
    start(page)
    page.keyboard.press("PageDown")
    assert state(page)[5] == "2"
    page.locator(".thumb").nth(6).click()
    assert state(page)[5] == "7"
    assert page.locator(".thumb[aria-pressed=true]").inner_text().startswith("Block 7")
    assert page.input_value("[name=block]") == "7"
    page.locator("[data-part=big]").focus()
    page.keyboard.press("PageUp")
    assert state(page)[5] == "6"


def test_pointing_with_the_mouse_moves_the_patch_and_a_click_holds_it(opened: Opened) -> None:
    page = opened.page
    start(page)
    big = page.locator("[data-part=big]")
    big.scroll_into_view_if_needed()
    box = big.bounding_box()

    def at(row: int, column: int) -> tuple[float, float]:
        return box["x"] + (column + 0.5) * box["width"] / 8, box["y"] + (row + 0.5) * box["height"] / 8

    page.mouse.move(*at(2, 5))
    assert state(page)[-1] == str(2 * 8 + 5)
    page.mouse.click(*at(6, 1))
    page.mouse.move(*at(0, 0))
    assert state(page)[-1] == str(6 * 8 + 1)
    assert "Held" in words(page)
    page.mouse.click(*at(6, 1))
    page.mouse.move(*at(0, 3))
    assert state(page)[-1] == "3"


def test_a_tap_chooses_a_patch(browser: Any, run: Path) -> None:
    one = Opened(browser, run / "report.html", has_touch=True, viewport={"width": 390, "height": 844})
    big = one.page.locator("[data-part=big]")
    big.scroll_into_view_if_needed()
    box = big.bounding_box()
    one.page.touchscreen.tap(box["x"] + 1.5 * box["width"] / 8, box["y"] + 6.5 * box["height"] / 8)
    assert state(one.page)[-1] == str(6 * 8 + 1)
    one.context.close()


def test_every_choice_changes_what_is_shown(opened: Opened) -> None:
    page = opened.page
    start(page)
    seen = {pixels(page)}
    for name, value, place, expected in (
        ("block", "2", 5, "2"),
        ("slice", "1", 2, "1"),
        ("slice", "0", 2, "0"),
        ("head", "2", 4, "2"),
        ("kind", "rollout", 3, "rollout"),
        ("depth", "3", 1, "3"),
    ):
        choose(page, **{name: value})
        assert state(page)[place] == expected
        if (name, value) != ("slice", "0"):
            assert pixels(page) not in seen
        seen.add(pixels(page))
    assert page.locator(".thumb").count() == 3
    choose(page, network="1")
    page.wait_for_selector("#explorer[data-state^='2D CATS']")
    assert pixels(page) not in seen


def test_single_heads_are_offered_where_they_are_kept(opened: Opened) -> None:
    page = opened.page
    start(page)
    assert page.locator("[name=head] option").all_inner_texts() == ["average", "head 1", "head 2", "head 3"]
    choose(page, slice="1")
    assert page.is_disabled("[name=head]")
    choose(page, slice="0", kind="rollout")
    assert page.is_disabled("[name=head]")


@pytest.mark.parametrize("name", ["reference", "prediction", "image", "lattice"])
def test_what_lies_over_the_image_can_be_switched(opened: Opened, name: str) -> None:
    page = opened.page
    start(page)
    before = pixels(page)
    page.locator(f"#explorer [name={name}]").click()
    assert pixels(page) != before
    page.locator(f"#explorer [name={name}]").click()
    assert pixels(page) == before


def test_the_mosaic_shows_the_papers_blocks_or_all(opened: Opened) -> None:
    page = opened.page
    start(page)
    choose(page, view="mosaic")
    captions = page.locator("[data-part=mosaics] figcaption")
    assert [text.split(":")[0] for text in captions.all_inner_texts()] == ["Block 1", "Block 2", "Block 3", "Block 6"]
    canvas = page.locator("[data-part=mosaics] canvas").first
    assert canvas.evaluate("c => [c.width, c.height]") == [8 * 9 - 1, 8 * 9 - 1]
    choose(page, mosaic_blocks="all")
    assert captions.count() == 12
    choose(page, mosaic_blocks="paper", depth="3")
    assert captions.count() == 3


def test_the_threshold_moves_the_depth_as_the_rule_does(opened: Opened, run: Path) -> None:
    page = opened.page
    for number, network in enumerate(("transunet", "cats2d")):
        decision = stored_rule(run / "networks" / network)
        panel = page.locator("[data-decision]").nth(number)
        slider, told = panel.locator("input"), panel.locator("output")
        for threshold in (0.05, 0.3, 0.5, 0.66, 0.8, 0.9, 0.99, 1.02):
            slider.evaluate(
                "(input, v) => { input.value = v; input.dispatchEvent(new Event('input')); }", str(threshold)
            )
            found = decision.at(float(slider.input_value()))
            if found.reached:
                assert f"the attention rule says {found.depth} of 12 blocks" in told.inner_text()
                assert ("intervals of the single blocks allow" in told.inner_text()) == (found.low != found.high)
            else:
                assert "the attention rule says all 12" in told.inner_text()
        panel.locator("button").click()
        assert f"the attention rule says {decision.depth} of 12 blocks" in told.inner_text()


def test_the_threshold_obeys_the_keyboard(opened: Opened) -> None:
    panel = opened.page.locator("[data-decision]").nth(1)
    before = panel.locator("output").inner_text()
    line = opened.page.locator("#decision-cats2d line.threshold")
    place = line.get_attribute("y1")
    panel.locator("input").focus()
    for _ in range(20):
        opened.page.keyboard.press("ArrowLeft")
    assert panel.locator("output").inner_text() != before
    assert float(line.get_attribute("y1")) > float(place)
    panel.locator("button").click()
