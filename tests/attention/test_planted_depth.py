"""The rule finds the planted depth of transformers whose attention is known."""

from __future__ import annotations

import pytest
import torch

from tests.attention.planted import PlantedViT, checkerboards, halves, noise, planted
from vitrim.attention.decision import FALLS_BACK, NOT_REACHED, UNIFORM
from vitrim.attention.profiling import profile_attention
from vitrim.attention.rule import decide_depth

MEASURES = ["globality", "self_share", "entropy"]


@pytest.mark.parametrize("local", range(12))
def test_the_first_global_block_is_found(local: int) -> None:
    decision = decide_depth(profile_attention(planted(local), noise(10), measures=MEASURES))
    assert decision.depth == decision.low == decision.high == local + 1
    assert decision.flags == ()


@pytest.mark.parametrize("local", range(0, 12, 3))
def test_the_most_global_head_and_other_measures_find_it_too(local: int) -> None:
    profile = profile_attention(planted(local), noise(10), measures=MEASURES)
    assert decide_depth(profile, head="max").depth == local + 1
    assert decide_depth(profile, head=2).depth == local + 1
    assert decide_depth(profile, measure="self_share", threshold=0.1).depth == local + 1
    assert decide_depth(profile, measure="entropy", threshold=0.65).depth == local + 1


def test_all_blocks_are_kept_when_none_is_global() -> None:
    decision = decide_depth(profile_attention(planted(12), noise(10)))
    assert (decision.depth, decision.low, decision.high) == (12, 12, 12)
    assert NOT_REACHED in decision.flags
    assert decision.sentence().startswith(
        "The attention rule says all 12 blocks: there is no block in which the globality"
    )


def test_an_interval_that_straddles_the_threshold_is_said() -> None:
    model = PlantedViT(["local", "local", "similar", "global", "global"])
    images = torch.cat([halves(6), checkerboards(6)]) + 0.05 * noise(12)
    profile = profile_attention(model, images)
    values = profile.of("globality")[:, 2]
    assert values[:6].max() < 0.8 < 0.95 < values[6:].min()
    decision = decide_depth(profile, threshold=0.85)
    assert (decision.low, decision.depth, decision.high) == (3, 4, 4)
    assert "allow depths from 3 to 4" in decision.sentence()


def test_uniform_attention_is_global_by_definition_and_flagged() -> None:
    decision = decide_depth(profile_attention(PlantedViT(["uniform"] * 3), noise(10)))
    assert decision.depth == 1
    assert UNIFORM in decision.flags
    assert "indistinguishable from uniform in blocks 1 to 3" in decision.sentence()


def test_global_attention_that_looks_is_not_called_uniform() -> None:
    decision = decide_depth(profile_attention(planted(0), noise(10)))
    assert decision.depth == 1
    assert max(block.entropy or 0 for block in decision.blocks) < 0.98


def test_a_local_block_behind_a_global_one_is_flagged() -> None:
    model = PlantedViT(["local", "global", "local", "global"])
    decision = decide_depth(profile_attention(model, noise(10)))
    assert decision.depth == 2
    assert FALLS_BACK in decision.flags
