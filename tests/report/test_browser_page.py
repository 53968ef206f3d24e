"""The page around the explorer in a browser: keyboard, widths, colours, saved pictures, hostile names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import HOSTILE, Opened
from tests.report.test_browser import start


def test_the_keyboard_reaches_everything(opened: Opened) -> None:
    page = opened.page
    start(page)
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, select, input, summary, [tabindex=\"0\"]')]"
        ".filter((e) => e.checkVisibility() && e.offsetParent && !e.disabled).length"
    )
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(() => { const e = document.activeElement; return e === document.body ? null : "
            "[...document.querySelectorAll('*')].indexOf(e); })()"
        )
        if name is not None:
            reached.add(name)
    assert len(reached) >= wanted


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_sticks_out_at_any_width(opened: Opened, width: int) -> None:
    with opened.seen(width):
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_colours_follow_the_system_and_the_button(browser: Any, run: Path) -> None:
    one = Opened(browser, run / "report.html", color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = one.page.evaluate(paper)
    one.page.click("#theme")
    assert one.page.evaluate(paper) == "rgb(255, 255, 255)" != dark
    one.page.click("#theme")
    assert one.page.evaluate(paper) == dark
    one.context.close()


@pytest.mark.parametrize("view", ["#explorer .patch-view", ".decision figure", ".mosaics[data-save]", ".slice"])
def test_a_view_is_saved_as_svg_and_as_png(opened: Opened, tmp_path: Path, view: str) -> None:
    page = opened.page
    start(page)
    for kind, signature in (("SVG", b"<svg xmlns"), ("PNG", b"\x89PNG")):
        with page.expect_download() as caught:
            page.locator(view).first.locator(".save button", has_text=kind).click()
        path = tmp_path / caught.value.suggested_filename
        caught.value.save_as(path)
        assert path.suffix == f".{kind.lower()}"
        assert path.read_bytes().startswith(signature)
        assert path.stat().st_size > 2000
    assert opened.errors == []


def test_a_saved_svg_stands_alone(opened: Opened, tmp_path: Path) -> None:
    import xml.etree.ElementTree as ElementTree

    page = opened.page
    with page.expect_download() as caught:
        page.locator(".slice").first.locator(".save button", has_text="SVG").click()
    caught.value.save_as(tmp_path / "slice.svg")
    tree = ElementTree.parse(tmp_path / "slice.svg")
    images = [node.attrib["href"] for node in tree.iter("{http://www.w3.org/2000/svg}image")]
    assert len(images) > 4
    assert all(address.startswith("data:image/png") for address in images)
    assert "Reference" in "".join(node.text or "" for node in tree.iter("{http://www.w3.org/2000/svg}text"))


def test_hostile_names_do_nothing(browser: Any, hostile: Path) -> None:
    one = Opened(browser, hostile / "report.html")
    one.page.wait_for_timeout(200)
    assert one.errors == []
    assert one.asked == []
    assert one.page.locator("img[src=x]").count() == 0
    assert HOSTILE[0] in one.page.text_content("#table")
    one.context.close()
