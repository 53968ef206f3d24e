"""A truncated network with its whole decoder keeps every scale, fed by the last block that is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import vitrim as package
from vitrim.errors import InputError
from vitrim.models.describe import count_parameters
from vitrim.models.layers import kept_taps
from vitrim.models.network import Network

SMALL = {"num_classes": 3, "size": "micro", "width": 0.125, "image_size": 64}


@pytest.fixture(params=["unetr2d", "cats2d"])
def full(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    more = {"backbone": "resnet10t"} if request.param == "cats2d" else {}
    return package.create_model(request.param, **SMALL, **more).eval()


def test_all_taps_stay_and_those_beyond_the_depth_move_to_it() -> None:
    assert kept_taps((3, 6, 9, 12), 7, "whole") == (3, 6, 7, 7)
    assert kept_taps((3, 6, 9, 12), 1, "whole") == (1, 1, 1, 1)


@pytest.mark.parametrize("depth", [1, 3, 7, 12])
def test_every_scale_and_every_weight_of_the_decoder_stays(full: Network, depth: int) -> None:
    small = package.truncate(full, depth, "whole").eval()
    before = {name: tensor for name, tensor in full.state_dict().items() if not name.startswith("vit.blocks.")}
    after = {name: tensor for name, tensor in small.state_dict().items() if not name.startswith("vit.blocks.")}
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert set(small.tap_of_scale) == set(full.tap_of_scale)
    assert set(small.tap_of_scale.values()) <= set(range(1, depth + 1))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = small(images)
    assert logits.shape == (2, 3, 64, 64)
    if depth == 12:
        assert torch.equal(logits, full(images))


def test_it_saves_the_blocks_alone_and_the_papers_form_more(full: Network) -> None:
    whole, paper = (package.truncate(full, 1, form) for form in ("whole", "paper"))
    block = sum(parameter.numel() for parameter in full.blocks[0].parameters())
    assert count_parameters(full) - count_parameters(whole) == 11 * block
    assert count_parameters(paper) < count_parameters(whole)


def test_skipping_the_later_blocks_is_the_same_network(full: Network) -> None:
    """With the identity in place of blocks 4 to 12, the full network computes what the whole decoder gets."""
    small, images = package.truncate(full, 3, "whole").eval(), torch.randn(2, 3, 64, 64)
    for place in range(3, 12):
        full.blocks[place] = torch.nn.Identity()
    with torch.no_grad():
        assert torch.equal(small(images), full(images))


def test_a_checkpoint_keeps_the_form(full: Network, tmp_path: Path) -> None:
    package.save_model(package.truncate(full, 2, "whole"), tmp_path / "small")
    again = package.load_model(tmp_path / "small")
    assert (again.config.decoder, again.depth, len(again.tap_of_scale)) == ("whole", 2, 4)


def test_what_is_gone_does_not_come_back(full: Network) -> None:
    with pytest.raises(InputError, match="has no whole decoder"):
        package.truncate(package.truncate(full, 3), 1, "whole")
    with pytest.raises(InputError, match="did you mean 'whole'"):
        package.truncate(full, 3, "hole")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="keeps its decoder"):
        package.truncate(package.adapt(timm.create_model("vit_tiny_patch16_224", depth=2)), 1, "whole")
