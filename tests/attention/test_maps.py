"""Raw maps are the attention of the chosen blocks between patches."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from tests.attention.planted import noise, planted
from vitrim.attention.capture import capture_attention
from vitrim.attention.maps import raw_maps, roll_out, tokens_of
from vitrim.errors import InputError


def test_maps_are_head_averaged_and_of_the_chosen_blocks() -> None:
    model, image = planted(1, depth=4), noise(1)
    with torch.no_grad(), capture_attention(model) as captured:
        model(image)
    maps = raw_maps(model, image, blocks=(1, 3, 6))
    assert list(maps) == [1, 3]  # there is no block 6
    for block, found in maps.items():
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, captured.results[block - 1][0].mean(dim=0), atol=1e-6)
    heads = raw_maps(model, image, blocks=[2], heads=True)[2]
    np.testing.assert_allclose(heads, captured.results[1][0], atol=1e-6)
    assert list(raw_maps(model, image, blocks=None)) == [1, 2, 3, 4]


def test_tokens_before_the_patches_are_dropped_and_rows_renormalised() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), depth=2, embed_dim=48, num_heads=3)
    image = torch.randn(1, 3, 32, 64)
    found = raw_maps(model, image, blocks=[1])[1]
    assert found.shape == (8, 8)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    tokens = tokens_of(model, image)
    assert (tokens.grid, tokens.prefix, tokens.patch) == ((2, 4), 1, (16.0, 16.0))


def test_rollout_maps_spread_block_by_block() -> None:
    model, image = planted(3, depth=4), noise(1)
    rolled = roll_out(np.stack(list(raw_maps(model, image, blocks=None).values())))
    maps = dict(enumerate(rolled, 1))
    reach = [np.count_nonzero(found[0] > 1e-3) for found in maps.values()]
    assert list(maps) == [1, 2, 3, 4]
    assert reach == sorted(reach)
    assert reach[-1] > 2 * reach[0]
    for found in maps.values():
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_what_cannot_be_mapped_is_refused() -> None:
    model = planted(1, depth=2)
    with pytest.raises(InputError, match="none of the blocks 3, 6"):
        raw_maps(model, noise(1), blocks=(3, 6))
    with pytest.raises(InputError, match="one image"):
        raw_maps(model, noise(2))
