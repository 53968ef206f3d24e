"""The first screen of the report: each network's recommendation, how far it is shown, what it costs and saves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.conftest import Opened
from vitrim.report.answers import answers, shared_notes
from vitrim.report.run import read_run


def test_a_card_says_recommendation_verdict_cost_and_saving_in_this_order(opened: Opened) -> None:
    card = opened.page.locator(".answer").nth(1).inner_text()
    order = ["2D CATS", "Keep 3 of 12 blocks", "enough", "3 of 12 blocks are enough", "Cost", "Average Dice", "Saving"]
    places = [card.index(words) for words in order]
    assert places == sorted(places)


def test_all_cards_stand_on_the_first_screen(opened: Opened) -> None:
    with opened.seen(1400):
        bottoms = "all => all.map((card) => card.getBoundingClientRect().bottom + scrollY)"
        assert all(bottom <= 900 for bottom in opened.page.eval_on_selector_all(".answer", bottoms))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_card_whose_network_lost_dice_looks_and_reads_differently(opened: Opened, scheme: str) -> None:
    cards = opened.page.locator(".answer")

    def look(index: int) -> list[str]:
        return cards.nth(index).evaluate(
            "card => { const s = getComputedStyle(card), b = getComputedStyle(card.querySelector('.badge'));"
            " return [s.borderTopColor, s.borderTopStyle, b.backgroundColor]; }"
        )

    with opened.seen(scheme=scheme):
        looks = [look(index) for index in range(3)]
    assert looks[0] == looks[1]
    assert all(a != b for a, b in zip(looks[1], looks[2], strict=True))
    lost = " ".join(cards.nth(2).inner_text().split())  # no-break spaces too
    assert "not shown" in lost
    assert "Dice is lower with 3 blocks" in lost
    assert "Keep all 12 blocks" in lost
    assert "The smallest depth tried, 3, is at −6.7 % (−10.7 to −3.2)." in lost
    assert "needs" not in lost
    assert "Dice is lower" not in cards.nth(1).inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_words_of_a_verdict_have_contrast(opened: Opened, scheme: str) -> None:
    with opened.seen(scheme=scheme):
        pairs = opened.page.eval_on_selector_all(
            ".badge:not(.provisional)",
            "all => all.map((b) => [getComputedStyle(b).color, getComputedStyle(b).backgroundColor])",
        )
    for pair in pairs:
        dark, light = sorted(_luminance(colour) for colour in pair)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def _luminance(colour: str) -> float:
    """Relative luminance of an opaque "rgb(…)" colour (WCAG 2)."""
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_each_warning_stands_once(opened: Opened) -> None:
    warnings = opened.page.locator(".caution li, p.caution").all_inner_texts()
    assert warnings
    assert len(set(warnings)) == len(warnings)
    text = opened.page.inner_text("body")
    for warning in warnings:
        assert text.count(warning) == 1


def test_a_network_that_is_enough_but_lost_dice_is_marked_too(run: Path) -> None:
    answer = answers(read_run(run))[1]
    assert answer.result is not None
    assert answer.loss == ""
    lost = replace(answer, result=answer.result.model_copy(update={"percent": -3.0, "low": -4.0, "high": -2.0}))
    assert lost.verdict == "enough"
    assert lost.loss == "Dice is lower with 3 blocks"


def test_a_note_names_its_networks_unless_it_is_about_all(run: Path) -> None:
    found = answers(read_run(run))
    notes = shared_notes([replace(found[0], notes=("a", "b")), replace(found[1], notes=("b", "c"))])
    assert [note for note in notes if note in ("b",) or note.endswith((": a", ": c"))] == [
        "TransUNet: a",
        "b",
        "2D CATS: c",
    ]


def test_attention_that_does_not_decide_is_said_once_for_all_networks(run: Path) -> None:
    found = []
    for answer, change in zip(answers(read_run(run)), (0.04, 0.1, -0.1), strict=True):
        decision = answer.network.decision
        assert decision is not None
        silent = decision.model_copy(update={"rules": {"exchange": 0}, "exchange_percent": change})
        found.append(replace(answer, network=replace(answer.network, decision=silent), notes=()))
    assert shared_notes(found) == [
        "Attention does not decide in TransUNet, 2D CATS and 2D UNETR: before any training the rule globality says 1 "
        "as well. With exchange between patches switched off, without training again, Dice changes by 0.0 %, +0.1 % "
        "and −0.1 %."
    ]
