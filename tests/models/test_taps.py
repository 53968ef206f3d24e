"""Each scale of the decoder gets the right block."""

from __future__ import annotations

import pytest
import torch

from vitrim.errors import InputError
from vitrim.models.factory import create_model
from vitrim.models.layers import kept_taps
from vitrim.models.network import Network


def meta(name: str, **choices: object) -> Network:
    with torch.device("meta"):
        return create_model(name, num_classes=2, size="micro", width=0.125, backbone="resnet18", **choices)  # type: ignore[arg-type]


def test_the_first_tap_at_or_beyond_the_depth_moves_to_it() -> None:
    taps = (3, 6, 9, 12)
    assert kept_taps(taps, 12) == (3, 6, 9, 12)
    assert kept_taps(taps, 11) == (3, 6, 9, 11)
    assert kept_taps(taps, 9) == (3, 6, 9)
    assert kept_taps(taps, 7) == (3, 6, 7)
    assert kept_taps(taps, 3) == (3,)
    assert kept_taps(taps, 1) == (1,)


def test_unetr_at_depth_7_has_7_in_the_place_of_9() -> None:
    network = meta("unetr2d", depth=7)
    assert network.taps == (3, 6, 7)
    assert network.tap_of_scale == {2: 3, 4: 6, 8: 7}


def test_in_cats_the_last_block_kept_feeds_one_sixteenth_and_a_tap_may_coincide_with_it() -> None:
    assert meta("cats2d").tap_of_scale == {2: 3, 4: 6, 8: 9, 16: 12}
    assert meta("cats2d", depth=7).tap_of_scale == {2: 3, 4: 6, 8: 7, 16: 7}
    assert meta("cats2d", depth=3).tap_of_scale == {2: 3, 16: 3}
    assert meta("cats2d", depth=0).tap_of_scale == {}


def test_transunet_takes_the_last_block_alone() -> None:
    assert meta("transunet", depth=5).tap_of_scale == {16: 5}


def test_taps_can_be_chosen() -> None:
    network = meta("unetr2d", taps=(4, 7, 10, 12))
    assert network.taps == (4, 7, 10, 12)
    assert meta("unetr2d", taps=(2, 4, 6, 8), depth=8).taps == (2, 4, 6, 8)


def test_taps_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="not increasing"):
        meta("unetr2d", taps=(3, 3, 9, 12))
    with pytest.raises(InputError, match="leave block 11 and later ones unused"):
        meta("unetr2d", taps=(2, 4, 6, 10))
