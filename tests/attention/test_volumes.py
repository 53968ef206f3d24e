"""Attention in volumes: distances have three dimensions, and mm follow from three spacings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNETR
from monai.networks.nets import ViT as MonaiViT
from scipy.spatial.distance import cdist
from torch import nn

from vitrim.attention.exchange import without_exchange
from vitrim.attention.maps import mosaic, raw_maps
from vitrim.attention.measures import MEASURES
from vitrim.attention.profile import AttentionProfile
from vitrim.attention.profiling import profile_attention
from vitrim.attention.rule import decide_depth
from vitrim.attention.tokens import distances, neighbours
from vitrim.errors import InputError
from vitrim.models.adapt import adapt

GRID = (2, 2, 3)
SIZES = {"hidden_size": 16, "mlp_dim": 16, "num_heads": 2}
PLACES = np.argwhere(np.ones(GRID))


def uniform_vit() -> nn.Module:
    """A ViT of volumes whose every patch attends to all patches alike."""
    model = MonaiViT(1, (32, 32, 48), 16, num_layers=2, **SIZES)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
    return adapt(model, example=torch.zeros(2, 1, 32, 32, 48))


def volumes(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0))


def test_distances_are_those_between_the_centres_of_the_patches() -> None:
    mm = np.array([5.0, 1.0, 0.5])
    np.testing.assert_allclose(distances(GRID, tuple(mm)), cdist(PLACES * mm, PLACES * mm))
    assert neighbours((3, 3, 3)).sum(dim=1).max() == 26  # of the patch in the middle


def test_uniform_attention_has_the_mean_distance_in_patches_voxels_and_mm() -> None:
    profile = profile_attention(uniform_vit(), volumes(), spacing=(5.0, 1.0, 0.5))
    assert (profile.grid, profile.patch, profile.blocks) == (GRID, (16, 16, 16), 2)
    patches = cdist(PLACES, PLACES).mean()
    mm = cdist(PLACES * 16 * [5, 1, 0.5], PLACES * 16 * [5, 1, 0.5]).mean()
    for measure, expected in {
        "globality": 1.0,
        "entropy": 1.0,
        "self_share": 1 / 12,
        "distance_patches": patches,
        "distance_pixels": 16 * patches,
        "distance_mm": mm,
    }.items():
        np.testing.assert_allclose(profile.of(measure), expected, rtol=1e-5)


def test_cases_may_have_their_own_spacings() -> None:
    cases = [("thick", volumes(1), (5.0, 1.0, 1.0)), ("cubic", volumes(1), (1.0, 1.0, 1.0)), ("none", volumes(1), None)]
    found = profile_attention(uniform_vit(), cases, measures=["distance_mm", "distance_pixels"])
    mm, voxels = found.of("distance_mm")[:, 0], found.of("distance_pixels")[:, 0]
    assert mm[0] > mm[1] == pytest.approx(voxels[1])
    assert np.isnan(mm[2])


def test_unetr_of_volumes_is_profiled_decided_stored_and_mapped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = adapt(UNETR(1, 2, img_size=(32, 32, 48), feature_size=4, **SIZES)).eval()
    profile = profile_attention(model, volumes(5), spacing=(2.0, 1.0, 1.0))
    assert (profile.grid, profile.blocks, len(profile.cases)) == (GRID, 12, 5)
    assert set(profile.measures) == set(MEASURES)
    assert 1 <= decide_depth(profile).depth <= 12
    profile.save(tmp_path)
    again = AttentionProfile.load(tmp_path)
    assert (again.grid, again.patch) == (profile.grid, profile.patch)
    np.testing.assert_allclose(again.values, profile.values, atol=1e-12, equal_nan=True)
    maps = raw_maps(model, volumes(1), [1])
    assert maps[1].shape == (12, 12)
    np.testing.assert_allclose(maps[1].sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="mosaic"):
        mosaic(maps[1], GRID)
    short = model.truncated(2)
    with torch.no_grad(), without_exchange(short, [1, 2]):
        assert short(volumes()).shape == (2, 2, 32, 32, 48)


def test_a_spacing_has_one_number_for_each_axis() -> None:
    with pytest.raises(InputError, match="the spacing must have 3 numbers, one for each axis"):
        profile_attention(uniform_vit(), volumes(), spacing=(1.0, 1.0))
    with pytest.raises(InputError, match="the spacing of case a must have 2 numbers"):
        profile_attention(uniform_vit(), [("a", torch.zeros(1, 1, 32, 32), (1.0, 1.0, 1.0))])
    with pytest.raises(InputError, match=r"or .images, channels, depth, height, width. for volumes"):
        profile_attention(uniform_vit(), torch.zeros(2, 32, 32))
