"""The tables of the page in a browser: they fit, they sort, and a phone shows cards."""

from __future__ import annotations

import pytest

from tests.report.conftest import Opened

MAIN = "#table table.fits"


def headings(opened: Opened, table: str) -> list[str]:
    return [text.strip() for text in opened.page.locator(f"{table} thead th").all_inner_texts()]


@pytest.mark.parametrize("width", [1400, 1216, 900])
def test_the_table_of_verdicts_fits(opened: Opened, width: int) -> None:
    with opened.seen(width):
        region = opened.page.locator("#table .scroll").first
        assert region.evaluate("box => box.scrollWidth <= box.clientWidth")
        assert region.bounding_box()["width"] <= 1176


def test_verdicts_stand_beside_dice_and_constants_are_left_out(opened: Opened) -> None:
    found = headings(opened, MAIN)
    place = found.index("Average Dice")
    assert found[place : place + 5] == [
        "Average Dice", "% Dice change", "95 % interval of the change", "Not worse by 5 %?", "Not worse by 1 %?",
    ]  # fmt: skip
    assert "Data set size" not in " ".join(headings(opened, "#table table"))
    assert "Data set size: 192 in every row." in opened.page.text_content("#table")


def test_a_verdict_has_a_colour_and_a_word(opened: Opened) -> None:
    def colour(word: str) -> str:
        cell = opened.page.locator(f"{MAIN} td", has_text=word).first
        return cell.evaluate("cell => getComputedStyle(cell).color")

    words = ("not worse", "undecided")
    worse = opened.page.locator(f"{MAIN} td.bad").first
    assert worse.inner_text() == "worse"
    assert len({*(colour(word) for word in words), worse.evaluate("cell => getComputedStyle(cell).color")}) == 3


def test_details_come_on_demand(opened: Opened) -> None:
    detail = opened.page.locator("#table details", has_text="Dice of every class")
    summary = detail.locator("summary").first
    assert not detail.locator("table").is_visible()
    summary.click()
    assert detail.locator("table").is_visible()
    assert "liver" in detail.locator("thead").inner_text()
    summary.click()


def test_the_table_sorts_by_number_and_goes_back(opened: Opened) -> None:
    table = opened.page.locator(MAIN)
    heading = table.locator("thead th", has_text="Average Dice")
    column = heading.evaluate("cell => cell.cellIndex") + 1

    def values() -> list[float]:
        return [float(text) for text in table.locator(f"tbody tr > :nth-child({column})").all_inner_texts()]

    before = values()
    heading.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert values() == sorted(before)
    assert heading.get_attribute("aria-sort") == "ascending"
    opened.page.keyboard.press("Enter")
    assert values() == sorted(before, reverse=True)
    opened.page.keyboard.press("Enter")
    assert values() == before


def test_missing_values_sort_last_either_way(opened: Opened) -> None:
    table = opened.page.locator(MAIN)
    heading = table.locator("thead th", has_text="% Dice change")
    column = heading.evaluate("cell => cell.cellIndex") + 1
    for _ in range(2):
        heading.locator("button").click()
        assert table.locator(f"tbody tr > :nth-child({column})").all_inner_texts()[-3:] == ["–"] * 3
    heading.locator("button").click()


def test_a_phone_shows_each_row_as_a_card_that_names_its_values_and_can_be_sorted(opened: Opened) -> None:
    with opened.seen(390):
        rows = opened.page.locator(f"{MAIN} tbody tr")
        boxes = [row.bounding_box() for row in rows.all()]
        assert all(box["width"] <= 390 and box["height"] > 80 for box in boxes)
        assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
        cell = rows.nth(1).locator("td", has_text="not worse").first
        label = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
        assert label == '"Not worse by 5 %?"'
        button = opened.page.locator(f"{MAIN} thead button", has_text="Average Dice")
        button.click()
        shown = rows.locator("td[data-label='Average Dice']").all_inner_texts()
        assert shown == sorted(shown)
        for _ in range(2):  # back to the original order
            button.click()


def test_a_screen_reader_finds_a_named_table_also_on_a_phone(opened: Opened) -> None:
    with opened.seen(390):
        table = opened.page.get_by_role("table", name="Verdicts and savings of all networks")
        assert table.count() == 1
        assert table.get_by_role("rowheader", name="TransUNet").count() == 3
        assert table.get_by_role("columnheader", name="Average Dice").count() == 1
