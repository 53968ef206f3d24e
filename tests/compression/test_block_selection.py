"""The choice of blocks to keep, by four criteria."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vitrim
from vitrim.compression.block_selection import block_influence, choose_blocks, without
from vitrim.errors import InputError


def network(name: str = "transunet") -> nn.Module:
    torch.manual_seed(0)
    return vitrim.create_model(
        name, num_classes=3, image_size=32, in_chans=1, size="micro", width=0.25, backbone="resnet10t"
    ).eval()


def idle(block: nn.Module) -> None:
    """Make a pre-norm block return its tokens unchanged: it adds nothing to the residual stream."""
    with torch.no_grad():
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()


def cases(count: int = 3):
    torch.manual_seed(1)
    return [(f"case{n}", torch.randn(2, 1, 32, 32), None) for n in range(count)]


def test_the_first_blocks_are_those_of_the_paper():
    assert choose_blocks(network(), 3).kept == (1, 2, 3)


def test_a_block_that_does_nothing_has_no_influence_and_is_the_first_to_go():
    model = network()
    for n in (2, 7):
        idle(model.blocks[n - 1])
    influence = block_influence(model, cases()).mean(axis=0)
    assert influence[[1, 6]] == pytest.approx(0, abs=1e-6)
    assert (np.delete(influence, [1, 6]) > 1e-5).all()
    choice = choose_blocks(model, 10, "influence", images=cases())
    assert choice.kept == (1, 3, 4, 5, 6, 8, 9, 10, 11, 12)
    # the smaller network computes the same as the full one
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(model.keep_blocks(choice.kept)(images), model(images))


def test_influence_is_one_minus_the_cosine_of_tokens_before_and_after():
    model = network()
    seen = {}
    hook = model.blocks[4].register_forward_hook(lambda block, args, out: seen.update(before=args[0], after=out))
    image = cases(1)
    model(image[0][1])
    hook.remove()
    expected = (1 - F.cosine_similarity(seen["before"], seen["after"], dim=-1)).mean()
    assert block_influence(model, image)[0, 4] == pytest.approx(float(expected), abs=1e-6)


def test_the_blocks_without_which_dice_falls_least_are_dropped():
    model = network()
    model.blocks[2].needed = 0.3
    model.blocks[9].needed = 0.1

    def dice(candidate: nn.Module) -> float:
        """Stand-in for Dice: the sum of `needed` over the blocks that still have parameters."""
        working = [block for block in candidate.blocks if list(block.parameters())]
        return sum(getattr(block, "needed", 0.01) for block in working)

    choice = choose_blocks(model, 2, "effect", dice=dice)
    assert choice.kept == (3, 10)
    assert choice.scores[2] == pytest.approx(0.3)


def test_random_blocks_depend_on_the_seed_alone():
    model = network()
    drawn = [choose_blocks(model, 4, "random", seed=n).kept for n in range(6)]
    assert drawn[0] == choose_blocks(model, 4, "random", seed=0).kept
    assert len(set(drawn)) > 1
    assert all(len(kept) == 4 and list(kept) == sorted(set(kept)) for kept in drawn)


def test_a_network_without_one_block_keeps_everything_else():
    model = network("cats2d")
    left = without(model, 5)
    whole = model.keep_blocks(range(1, 13))
    idle(whole.blocks[4])
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(left(images), whole(images))
    assert list(model.blocks[4].parameters())


@pytest.mark.parametrize("name", ["transunet", "cats2d", "unetr2d"])
def test_kept_blocks_keep_their_weights_and_the_first_ones_are_a_truncation(name):
    model = network(name)
    small = model.keep_blocks((2, 5, 11))
    for place, block in enumerate((2, 5, 11)):
        for key, tensor in small.blocks[place].state_dict().items():
            assert torch.equal(tensor, model.blocks[block - 1].state_dict()[key])
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(model.keep_blocks((1, 2, 3))(images), model.truncated(3)(images))
    assert small(images).shape == (2, 3, 32, 32)


def test_other_peoples_models_are_chosen_from_alike():
    import timm

    torch.manual_seed(0)
    model = vitrim.adapt(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=5).eval())
    idle(model.blocks[1])
    images = torch.randn(2, 3, 32, 32)
    choice = choose_blocks(model, 3, "influence", images=[("a", images, None)])
    assert choice.kept == (1, 3, 4)
    small = model.keep_blocks(choice.kept)
    torch.testing.assert_close(small(images), model(images))
    assert small.keep_blocks((1, 3)).kept == (1, 4)


@pytest.mark.parametrize(
    ("count", "method", "message"),
    [(13, "first", "13 of 12"), (3, "magic", "first, influence"), (3, "influence", "images"), (3, "effect", "labels")],
)
def test_what_cannot_be_chosen_is_said(count, method, message):
    with pytest.raises(InputError, match=message):
        choose_blocks(network(), count, method)


@pytest.mark.parametrize("kept", [(0, 1), (1, 13), (2, 1), (1, 1)])
def test_blocks_that_are_not_there_cannot_be_kept(kept):
    with pytest.raises(InputError, match="cannot keep blocks"):
        network().keep_blocks(kept)
