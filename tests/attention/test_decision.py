"""A decision has the right depth, interval, flags and file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vitrim.attention.decision import FALLS_BACK, FEW_CASES, NO_INTERVAL, NOT_CERTAIN, NOT_REACHED, UNIFORM
from vitrim.attention.profiling import AttentionProfile
from vitrim.attention.rule import Decision, decide_depth
from vitrim.errors import InputError


def profile(
    values: np.ndarray | Sequence[Sequence[float]], measure: str = "globality", entropy: Sequence[float] | None = None
) -> AttentionProfile:
    """Make a profile with values (cases, blocks) or (cases, blocks, heads). Head-averaged is the mean over heads."""
    array = np.asarray(values, dtype=float)
    heads = array if array.ndim == 3 else array[..., None]
    with_mean = np.concatenate([heads.mean(axis=-1, keepdims=True), heads], axis=-1)
    spread = np.full_like(with_mean, 0.5)
    if entropy is not None:
        spread[:] = np.asarray(entropy)[None, :, None]
    cases, blocks = array.shape[:2]
    return AttentionProfile(
        cases=tuple(f"case {n}" for n in range(cases)),
        slices=(1,) * cases,
        layers=tuple(f"blocks.{n}.attn" for n in range(blocks)),
        heads=(heads.shape[-1],) * blocks,
        measures=(measure, "entropy"),
        values=np.stack([with_mean, spread], axis=-1),
        grid=(4, 4),
        prefix_tokens=0,
        patch=(16.0, 16.0),
        queries=16,
    )


def around(means: Sequence[float], cases: int = 20, spread: float = 0.02, seed: int = 0) -> np.ndarray:
    """Draw values of `cases` cases around the means of the blocks."""
    return np.asarray(means) + spread * np.random.default_rng(seed).standard_normal((cases, len(means)))


def test_the_depth_is_the_first_block_that_reaches_the_threshold() -> None:
    decision = decide_depth(profile(around([0.1, 0.5, 0.8, 0.9])))
    assert (decision.depth, decision.low, decision.high, decision.flags) == (3, 3, 3, ())
    assert [block.value for block in decision.blocks] == pytest.approx([0.1, 0.5, 0.8, 0.9], abs=0.02)
    assert "block 3 is the first whose globality" in decision.sentence()


def test_the_interval_is_the_percentile_bootstrap_over_cases() -> None:
    values = around([0.5, 0.7], cases=12, spread=0.1)
    decision = decide_depth(profile(values), seed=3)
    rng = np.random.default_rng(11)
    means = [values[rng.integers(0, 12, 12)].mean(axis=0) for _ in range(20000)]
    expected = np.percentile(means, [2.5, 97.5], axis=0)
    for block in range(2):
        found = decision.blocks[block]
        assert (found.low, found.high) == pytest.approx(expected[:, block], abs=0.005)


def test_the_depth_is_the_sure_block_and_the_possible_one_is_said() -> None:
    values = around([0.1, 0.66, 0.9], spread=0.05)
    decision = decide_depth(profile(values))
    low, high = decision.blocks[1].low, decision.blocks[1].high
    assert low is not None
    assert high is not None
    assert low < 2 / 3 < high
    assert (decision.low, decision.depth, decision.high) == (2, 3, 3)
    assert "block 3 is the first whose globality" in decision.sentence()
    assert "reaches 2/3 with its whole 95 % interval (it is 0.9" in decision.sentence()
    assert "allow depths from 2 to 3" in decision.sentence()


def test_a_threshold_that_is_perhaps_reached_keeps_all_blocks() -> None:
    decision = decide_depth(profile(around([0.1, 0.66, 0.3], spread=0.05)))
    assert (decision.low, decision.depth, decision.high) == (2, 3, 3)
    assert decision.flags == (NOT_CERTAIN,)
    assert decision.sentence().startswith("The attention rule says all 3 blocks")


def test_a_threshold_that_is_never_reached_keeps_all_blocks_and_says_so() -> None:
    decision = decide_depth(profile(around([0.1, 0.2, 0.3])))
    assert (decision.depth, decision.flags) == (3, (NOT_REACHED,))


@pytest.mark.parametrize(("cases", "flag"), [(1, NO_INTERVAL), (4, NO_INTERVAL), (5, FEW_CASES), (9, FEW_CASES)])
def test_few_cases_are_flagged(cases: int, flag: str) -> None:
    decision = decide_depth(profile(around([0.1, 0.9], cases=cases)))
    assert decision.depth == 2
    assert decision.flags == (flag,)
    assert (decision.blocks[0].low is None) == (flag == NO_INTERVAL)
    assert decide_depth(profile(around([0.1, 0.9], cases=10))).flags == ()


def test_near_uniform_attention_is_flagged_from_an_entropy_of_098() -> None:
    assert decide_depth(profile(around([0.9, 0.9]), entropy=[0.979, 0.97])).flags == ()
    decision = decide_depth(profile(around([0.9, 0.9]), entropy=[0.98, 0.5]))
    assert decision.flags == (UNIFORM,)
    assert [block.uniform for block in decision.blocks] == [True, False]
    assert "Attention is indistinguishable from uniform in block 1 " in decision.sentence()


def test_a_later_block_that_is_local_again_is_flagged() -> None:
    assert decide_depth(profile(around([0.9, 0.2, 0.9]))).flags == (FALLS_BACK,)


def test_the_same_seed_gives_the_same_decision() -> None:
    values = profile(around([0.1, 0.66, 0.9], spread=0.05))
    assert decide_depth(values, seed=1) == decide_depth(values, seed=1)
    assert decide_depth(values, seed=1).blocks != decide_depth(values, seed=2).blocks


def test_the_most_global_head_decides_if_asked() -> None:
    values = np.zeros((10, 3, 2)) + np.array([[0.1, 0.2], [0.3, 0.9], [0.9, 0.9]])
    assert decide_depth(profile(values)).depth == 3  # the average reaches it at block 3
    decision = decide_depth(profile(values), head="max")
    assert (decision.depth, decision.head) == (2, "max")
    assert decide_depth(profile(values), head=1).depth == 3
    assert "most global head" in decision.sentence()


def test_blocks_may_have_different_numbers_of_heads() -> None:
    values = np.zeros((10, 2, 2)) + np.array([[0.3, np.nan], [0.2, 0.9]])
    pruned = profile(values)
    pruned.values[:, 0, 0] = pruned.values[:, 0, 1]  # block 1 has only one head, so its mean is that head
    assert decide_depth(pruned, head="max").depth == 2
    assert decide_depth(pruned, head="max").flags == ()
    with pytest.raises(InputError, match="of head 2: it cannot decide"):
        decide_depth(pruned, head=2)


def test_the_entropy_that_flags_is_that_of_the_deciding_head() -> None:
    found = profile(np.zeros((10, 1, 2)) + np.array([0.2, 0.9]))
    found.values[..., 1, 1] = 0.99  # the head that does not decide
    assert decide_depth(found, head="max").flags == ()
    found.values[..., 2, 1] = 0.99
    assert decide_depth(found, head="max").flags == (UNIFORM,)


def test_measures_that_fall_as_attention_becomes_global_are_reached_from_above() -> None:
    values = around([0.9, 0.4, 0.105, 0.05], spread=0.02, cases=12)
    decision = decide_depth(profile(values, "self_share"), measure="self_share", threshold=0.1)
    block = decision.blocks[2]
    assert block.low is not None
    assert block.high is not None
    assert block.low < 0.1 < block.high
    assert (decision.low, decision.depth) == (3, 4)
    assert "falls to 0.1" in decision.sentence()


def test_the_untrained_network_stands_beside() -> None:
    decision = decide_depth(profile(around([0.1, 0.9])), untrained=profile(around([1.0, 1.0]), entropy=[0.99, 0.99]))
    assert [block.untrained_value for block in decision.blocks] == pytest.approx([1.0, 1.0], abs=0.02)
    assert [block.untrained_entropy for block in decision.blocks] == pytest.approx([0.99, 0.99])
    with pytest.raises(InputError, match="the untrained network has 1 blocks, the trained one 2"):
        decide_depth(profile(around([0.1, 0.9])), untrained=profile(around([1.0])))


def test_the_depth_at_every_other_threshold_is_there(tmp_path: Path) -> None:
    decision = decide_depth(profile(around([0.1, 0.42, 0.78, 0.97])))
    assert [decision.at(t).depth for t in (0.05, 0.3, 0.5, 0.9)] == [1, 2, 3, 4]
    assert not decision.at(0.99).reached
    decision.save(tmp_path / "decision.json")
    listed = json.loads((tmp_path / "decision.json").read_text())["depth_at_threshold"]
    assert len(listed) == 20
    for row in listed:
        found = decision.at(row["threshold"])
        assert (row["depth"], row["low"], row["high"]) == (found.depth, found.low, found.high)


def test_the_file_comes_back_and_can_be_edited(tmp_path: Path) -> None:
    decision = decide_depth(profile(around([0.1, 0.5, 0.8, 0.9])), untrained=profile(around([1, 1, 1, 1])))
    path = tmp_path / "decision.json"
    decision.save(path)
    assert Decision.load(path) == decision
    content = json.loads(path.read_text())
    assert content["in_words"] == decision.sentence()
    path.write_text(json.dumps(content | {"depth": 2}))
    edited = Decision.load(path)
    assert edited.depth == 2
    assert edited.sentence().startswith("2 of 4 blocks, set by hand; the attention rule says 3.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 5}, "depth 5: it must be a whole number from 0 to 4"),
        ({"depth": "three"}, "depth 'three'"),
        ({"measure": "beauty"}, "no such measure: 'beauty'"),
        ({"format": "other"}, "not a decision"),
        ({"blocks": [{"block": 1}]}, "cannot be read|depth"),
        ({"threshold": None}, "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "decision.json"
    decide_depth(profile(around([0.1, 0.5, 0.8, 0.9]))).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=reason):
        Decision.load(path)


def test_a_file_that_is_not_there_or_lacks_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    with pytest.raises(InputError, match="cannot read the decision"):
        Decision.load(path)
    path.write_text("depth: 3")
    with pytest.raises(InputError, match="is not JSON"):
        Decision.load(path)
    decide_depth(profile(around([0.1, 0.9]))).save(path)
    content = json.loads(path.read_text())
    del content["threshold"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="has no 'threshold'"):
        Decision.load(path)


def test_what_was_not_measured_cannot_decide() -> None:
    with pytest.raises(InputError, match="does not hold 'self_share'"):
        decide_depth(profile(around([0.1, 0.9])), measure="self_share")
    with pytest.raises(InputError, match="no such measure: 'beauty'"):
        decide_depth(profile(around([0.1, 0.9])), measure="beauty")
    with pytest.raises(InputError, match="no such head: 7"):
        decide_depth(profile(around([0.1, 0.9])), head=7)
    some = around([0.1, 0.9])
    some[3] = np.nan
    with pytest.raises(InputError, match="distance_mm is not known for every case"):
        decide_depth(profile(some, "distance_mm"), measure="distance_mm", threshold=30)


def test_a_constant_that_misses_by_rounding_has_reached_the_threshold() -> None:
    assert decide_depth(profile(np.full((10, 2), 1 - 1e-7)), threshold=1.0).depth == 1


def test_the_interval_covers_the_true_depth_as_often_as_it_says() -> None:
    """In 200 data sets of 30 cases, the true first block lies between low and high in about 95 %."""
    hits = 0
    for seed in range(200):
        values = around([0.3, 0.63, 0.70, 0.9], cases=30, spread=0.1, seed=seed)
        decision = decide_depth(profile(values), seed=seed)
        hits += decision.low <= 3 <= decision.high
    assert hits >= 180


def test_one_head_that_looks_somewhere_makes_a_block_not_uniform() -> None:
    """The average of heads can be uniform although a head is not."""
    sharp = profile(np.full((12, 2, 2), 0.9))
    entropies = sharp.values[..., 1]
    entropies[:, :, 0] = 0.99  # head-averaged
    entropies[:, :, 1] = 0.99
    entropies[:, 0, 2], entropies[:, 1, 2] = 0.78, 0.99
    decision = decide_depth(sharp)
    assert [block.uniform for block in decision.blocks] == [False, True]
    assert [block.least_entropy for block in decision.blocks] == pytest.approx([0.78, 0.99])
