"""The page on paper and in a screen reader."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import Opened
from tests.report.test_browser import start

A4 = 703
"""Width of the printed area of an A4 page in CSS pixels: 210 mm without margins of 12 mm."""


class Outline(HTMLParser):
    """Levels of the headings of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))


def test_headings_form_an_outline_without_gaps(run: Path) -> None:
    levels = Outline((run / "report.html").read_text(encoding="utf-8")).levels
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_everything_has_a_name_for_a_screen_reader(opened: Opened) -> None:
    page = opened.page

    def count(selector: str) -> int:
        return page.locator(selector).count()

    assert count("table") > 3
    assert count("table:not(:has(> caption))") == 0
    assert count("th:not([scope])") == 0
    assert count("section:not([aria-labelledby])") == 0
    assert count("figure:not(:has(figcaption))") == 0
    assert count("svg[role=img]:not([aria-label])") == 0
    assert count("img:not([alt])") == 0
    names = page.eval_on_selector_all(
        "[aria-labelledby]", "all => all.map((e) => document.getElementById(e.getAttribute('aria-labelledby')))"
    )
    assert None not in names
    for section in ("The answer", "Every network that was trained", "Depth at a glance"):
        assert page.get_by_role("region", name=section, exact=True).count() == 1


def test_a_link_leads_to_every_section(opened: Opened) -> None:
    page = opened.page
    targets = page.eval_on_selector_all("nav a", "all => all.map((a) => a.getAttribute('href').slice(1))")
    assert targets == page.eval_on_selector_all("section", "all => all.map((s) => s.id)")


@pytest.fixture
def paper(browser: Any, run: Path) -> Iterator[Opened]:
    """The page in dark colours, as it is printed."""
    one = Opened(browser, run / "report.html", viewport={"width": A4, "height": 1000}, color_scheme="dark")
    one.page.emulate_media(media="print")
    one.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    yield one
    one.context.close()


def test_paper_shows_everything_in_its_width(paper: Opened) -> None:
    page = paper.page
    assert page.evaluate("document.documentElement.scrollWidth") <= A4
    over = page.eval_on_selector_all(
        "table, figure, svg, .answer", f"all => all.filter((e) => e.getBoundingClientRect().right > {A4} + 1).length"
    )
    assert over == 0
    assert page.locator("#table details table").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in ("#theme", ".save", "[name=network]", "summary"):
        assert not page.locator(hidden).first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert not page.locator("#table details table").first.is_visible()


def test_cards_stand_side_by_side_on_paper(paper: Opened) -> None:
    boxes = [card.bounding_box() for card in paper.page.locator(".answer").all()]
    assert len({round(box["y"]) for box in boxes}) == 1


def test_the_page_becomes_a_pdf_of_few_pages_with_all_its_text(opened: Opened, tmp_path: Path) -> None:
    start(opened.page)
    printed = opened.page.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 25
    if shutil.which("pdftotext"):
        (tmp_path / "report.pdf").write_bytes(printed)
        command = ["pdftotext", "-layout", str(tmp_path / "report.pdf"), "-"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for words in ("Keep 3 of 12 blocks", "not shown", "Dice of every class", "Size and cost", "Depth at a glance"):
            assert words in text
