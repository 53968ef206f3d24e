"""The procedure tries depths in order, and its verdict says no more than was shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.attention.test_decision import around, profile
from vitrim.attention.rule import decide_depth
from vitrim.compression.depth_decision import (
    DepthDecision,
    DepthResult,
    confirm,
    read_depth,
    removed_scales,
    save_decision,
)
from vitrim.compression.depth_procedure import chosen_depth, next_depth
from vitrim.errors import WeightsError
from vitrim.models.transunet import TransUNet
from vitrim.models.unetr2d import UNETR2D

GOOD, BAD, OPEN = "not worse", "worse", "undecided"


def search(
    truth: dict[int, str], proposed: int, shallowest: int = 0, full: int = 12, tries: int = 4
) -> tuple[list[int], int]:
    """The depths that are tried, in order, and the one that is chosen, if the verdicts are `truth` (else not worse)."""
    seen: dict[int, str] = {}
    while (depth := next_depth(seen, proposed, shallowest, full, tries - len(seen))) is not None:
        seen[depth] = truth.get(depth, GOOD)
    return list(seen), chosen_depth(seen, full)


@pytest.mark.parametrize(
    ("truth", "proposed", "tried", "chosen"),
    [
        ({1: BAD, 0: BAD}, 3, [3, 1, 2], 2),
        ({}, 2, [2, 0], 0),
        ({1: BAD, 0: BAD}, 8, [8, 3, 1, 2], 2),  # a cut-off far above the need
        ({0: OPEN}, 1, [1, 0], 1),
        ({1: BAD, 2: OPEN}, 1, [1, 2, 3], 3),
        ({1: BAD, 2: BAD, 3: BAD, 4: BAD}, 1, [1, 2, 3, 4], 12),  # four tries and no more
        ({}, 6, [6, 2, 0], 0),
        ({4: BAD, 3: BAD, 2: BAD, 1: BAD, 0: BAD}, 12, [5, 2, 3, 4], 5),  # attention says that all are used
    ],
)
def test_a_smaller_depth_follows_a_good_one_and_the_next_larger_a_bad_one(
    truth: dict[int, str], proposed: int, tried: list[int], chosen: int
) -> None:
    assert search(truth, proposed) == (tried, chosen)


def test_no_form_below_the_smallest_is_tried() -> None:
    assert search({}, 2, shallowest=1) == ([2, 1], 1)


def test_depths_that_are_there_already_are_used() -> None:
    known = {3: GOOD, 2: GOOD}
    assert next_depth(known, 3, 0, 12, tries=4) == 0
    assert next_depth({**known, 0: BAD}, 3, 0, 12, tries=4) == 1
    assert chosen_depth({**known, 1: BAD}, 12) == 2
    assert next_depth({5: GOOD, 4: BAD, 2: GOOD}, 5, 0, 12, tries=4) == 0  # 4 failed, and fewer are enough
    assert next_depth({3: BAD, 6: GOOD}, 3, 0, 12, tries=4) == 4


@pytest.mark.parametrize(
    ("verdicts", "chosen"),
    [
        ({3: GOOD, 1: GOOD}, 1),
        ({3: GOOD, 1: BAD}, 3),
        ({6: GOOD, 1: BAD, 2: BAD, 3: BAD, 4: BAD}, 6),
        ({5: GOOD, 4: BAD, 2: GOOD, 1: BAD}, 2),  # the training of 4 blocks failed
        ({3: OPEN}, 12),
        ({}, 12),
    ],
)
def test_the_smallest_depth_that_is_not_worse_is_chosen(verdicts: dict[int, str], chosen: int) -> None:
    assert chosen_depth(verdicts, 12) == chosen


@given(
    truth=st.dictionaries(st.integers(0, 11), st.sampled_from([GOOD, BAD, OPEN])),
    proposed=st.integers(0, 12),
    tries=st.integers(0, 5),
)
def test_what_is_chosen_was_tried_and_is_not_worse(truth: dict[int, str], proposed: int, tries: int) -> None:
    tried, chosen = search(truth, proposed, tries=tries)
    assert len(tried) <= tries
    assert len(set(tried)) == len(tried)
    assert chosen == 12 or (chosen in tried and truth.get(chosen, GOOD) == GOOD)


@given(needed=st.integers(0, 12), proposed=st.integers(0, 12))
def test_with_tries_enough_the_search_ends_at_the_needed_depth_beside_one_that_is_worse(needed, proposed) -> None:
    tried, chosen = search(dict.fromkeys(range(needed), BAD), proposed, tries=12)
    assert chosen == needed
    assert needed in (0, 12) or {needed, needed - 1} <= {*tried}
    if proposed >= needed:
        assert len(tried) <= 5  # the middle each time, so a cut-off far above the need costs little


def table(level: float, cases: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(round(1000 * level))
    own = np.random.default_rng(0).normal(0, 0.02, size=cases)
    names = [f"case{n:02d}" for n in range(cases)]
    return pd.DataFrame({"case": names, "class": "disc", "dice": level + own + rng.normal(0, 0.001, size=cases)})


def proposal(**changes: Any) -> DepthDecision:
    settings: dict[str, Any] = {
        "network": "TransUNet",
        "full": 12,
        "depth": 12,
        "verdict": "not shown",
        "margin": 0.05,
        "proposed": 3,
        "rule": "exchange",
        "proposed_on": "tuning",
        "rules": {"exchange": 3, "globality": 1},
        "untrained": {"globality": 1},
        "exchange_percent": -20.0,
    }
    return DepthDecision(**{**settings, **changes})


def judged(levels: dict[int, float], chosen: int, shallowest: int = 0, **changes: Any) -> DepthDecision:
    return confirm(
        proposal(**changes), {d: table(level) for d, level in levels.items()}, chosen, (0.05, 0.01), shallowest
    )


def test_needs_is_said_only_if_the_next_smaller_form_was_shown_worse() -> None:
    found = judged({12: 0.9, 3: 0.9, 2: 0.7}, 3)
    assert (found.verdict, found.depth) == ("needs", 3)
    assert found.headline().startswith("TransUNet needs 3 of its 12 blocks: with 3 Dice is not worse by 5 % (")
    assert "with 2 it is (−22." in found.headline()
    assert judged({12: 0.9, 3: 0.9, 1: 0.7}, 3).verdict == "enough"  # 2 blocks were not tried
    assert judged({12: 0.9, 3: 0.9, 2: 0.9}, 3).verdict == "enough"
    assert judged({12: 0.9, 3: 0.9, 2: 0.7, 1: 0.9}, 3).verdict == "enough"  # 2 failed, and 1 is as good


def test_a_deeper_network_that_is_worse_is_said_to_have_failed() -> None:
    deeper = DepthResult(depth=4, percent=-38.0, low=-40.0, high=-36.0, cases=10, seeds=1, verdicts={"5": "worse"})
    found = judged({12: 0.9, 4: 0.6, 2: 0.9, 1: 0.7}, 2, tried=(deeper,))
    assert (found.verdict, found.depth) == ("needs", 2)
    assert "With 4 blocks, which is more, Dice is worse (−38.0 %, −40.0 to −36.0)" in found.in_words()


def test_enough_says_that_fewer_may_do_or_that_there_is_no_smaller_form() -> None:
    found = judged({12: 0.9, 3: 0.9}, 3)
    assert found.headline().startswith("3 of 12 blocks are enough for TransUNet; whether fewer are was not shown.")
    found = judged({12: 0.9, 1: 0.9}, 1, shallowest=1)
    assert found.headline().startswith("1 of 12 blocks is enough for TransUNet; it has no smaller form.")


def test_no_block_at_all_means_that_the_transformer_does_nothing() -> None:
    found = judged({12: 0.9, 0: 0.9}, 0, rules={"exchange": 0, "globality": 1}, exchange_percent=-0.3)
    assert (found.verdict, found.depth, found.tells) == ("nothing", 0, False)
    assert found.headline().startswith("On these data the transformer does nothing for Dice in TransUNet")
    assert found.notes()[0] == (
        "Attention does not decide here: before any training the rule says 1 as well, and without any exchange between "
        "patches Dice changes by −0.3 %."
    )


@pytest.mark.parametrize("level", [0.8, 0.855])
def test_a_depth_that_is_worse_or_undecided_is_never_recommended(level: float) -> None:
    found = judged({12: 0.9, 3: level}, 3)
    assert (found.verdict, found.depth) == ("not shown", 12)
    assert found.headline().startswith("No smaller depth of TransUNet was shown to be as good. The smallest tried, 3, ")
    assert "needs" not in found.in_words()


def test_a_full_network_that_segments_nothing_gives_no_verdict() -> None:
    found = judged({12: 0.05, 3: 0.05}, 3)
    assert (found.verdict, found.depth) == ("not shown", 12)
    assert found.headline() == (
        "Cannot tell how many blocks TransUNet needs: the average Dice of the full network is 0.051 on held-out "
        "cases, so it segments almost nothing."
    )


def test_one_full_network_of_several_that_segments_nothing_gives_no_verdict() -> None:
    full = pd.concat([table(0.9).assign(seed=0), table(0.05).assign(seed=7)])
    smaller = pd.concat([table(0.88).assign(seed=0), table(0.7).assign(seed=7)])
    found = confirm(proposal(), {12: full, 3: smaller}, 3, (0.05, 0.01), shallowest=0)
    assert (found.verdict, found.depth) == ("not shown", 12)
    assert found.headline().startswith(
        "Cannot tell how many blocks TransUNet needs: the average Dice of the full network with seed 7 is 0.0"
    )


def test_a_verdict_says_on_how_much_it_rests() -> None:
    notes = judged({12: 0.9, 3: 0.9, 2: 0.7}, 3).notes()
    assert notes == ["The verdict rests on 12 held-out cases of these two trained networks; it is provisional."]
    assert "optimistic" in judged({12: 0.9, 3: 0.9, 2: 0.7}, 3, judged_on="tuning").notes()[1]


def test_without_training_on_needs_is_never_said() -> None:
    found = judged({12: 0.9, 3: 0.9, 2: 0.7}, 3, trained_on=False)
    assert found.verdict == "enough"
    assert "were not trained on" in found.notes()[-1]


def test_other_notes_say_what_makes_the_result_optimistic_or_confounded() -> None:
    assert "With 5 folds" in judged({12: 0.9, 3: 0.9}, 3, folds=5).notes()[1]
    removed = removed_scales(UNETR2D, "paper")
    assert judged({12: 0.9, 3: 0.9}, 3, also_removed=removed).notes()[-1] == removed
    assert removed_scales(UNETR2D, "whole") == removed_scales(TransUNet, "paper") == ""


def test_an_old_decision_is_kept_and_a_depth_set_by_hand_stays(tmp_path: Path) -> None:
    rule = decide_depth(profile(around([0.1, 0.9, 0.9])))
    rule.save(tmp_path / "decision.json")
    before = (tmp_path / "decision.json").read_bytes()
    save_decision(proposal(), tmp_path)
    assert (tmp_path / "attention_rule.json").read_bytes() == before
    content = json.loads((tmp_path / "decision.json").read_text())
    (tmp_path / "decision.json").write_text(json.dumps({**content, "depth": 5}))
    save_decision(judged({12: 0.9, 3: 0.9}, 3), tmp_path)
    found = DepthDecision.load(tmp_path / "decision.json")
    assert (found.depth, found.verdict, found.set_by_hand) == (5, "enough", True)


def test_the_file_comes_back_and_a_person_can_change_its_depth(tmp_path: Path) -> None:
    found, path = judged({12: 0.9, 3: 0.9, 2: 0.7}, 3), tmp_path / "decision.json"
    found.save(path)
    assert DepthDecision.load(path) == found
    assert read_depth(path) == (3, 12)
    content = json.loads(path.read_text())
    assert (content["verdict"], content["attention_tells"]) == ("needs", True)
    path.write_text(json.dumps({**content, "depth": 5}))
    edited = DepthDecision.load(path)
    assert read_depth(path) == (5, 12)
    assert edited.headline() == "5 of 12 blocks were set by hand for TransUNet; nothing was shown of them."


def test_a_decision_of_the_old_format_is_read(tmp_path: Path) -> None:
    decision = decide_depth(profile(around([0.1, 0.9, 0.9])))
    decision.save(tmp_path / "decision.json")
    assert read_depth(tmp_path / "decision.json") == (2, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"depth": 13}, "from 0 to 12"),
        ({"depth": "three"}, "depth"),
        ({"depth": 2.5}, "depth"),
        ({"verdict": "perhaps"}, "did you mean|choose from"),
        ({"confirmed": {"depth": 3}}, "confirmed"),
        ({"format": "vitrim decision 9"}, "format"),
        ({"cheese": 1}, "cheese"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    proposal().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(WeightsError, match=word) as error:
        read_depth(path)
    assert "\n" not in str(error.value)
