"""A profile is the mean over the slices of each case, for any batch size. Saving and loading keeps it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import vitrim
from tests.attention.planted import PlantedViT, noise, planted
from vitrim.attention.capture import capture_attention
from vitrim.attention.measures import MEASURES, globality, measure_maps, rollout
from vitrim.attention.profiling import AttentionProfile, profile_attention
from vitrim.attention.softmax import DotProduct
from vitrim.errors import InputError


@pytest.fixture(scope="module")
def model() -> PlantedViT:
    return planted(1, depth=3)


@pytest.fixture(scope="module")
def profile(model: PlantedViT) -> AttentionProfile:
    return profile_attention(model, noise(5), spacing=(1.0, 2.0))


def test_the_table_has_a_row_for_what_exists(profile: AttentionProfile) -> None:
    table = profile.table()
    assert list(table.columns) == ["case", "block", "head", "measure", "value"]
    assert set(table["case"]) == {"0", "1", "2", "3", "4"}
    assert set(table["block"]) == {1, 2, 3}
    assert set(table["head"]) == {"mean", 1, 2, 3, 4}
    assert set(table["measure"]) == set(MEASURES)
    assert table["value"].notna().all()
    assert set(table[table["measure"] == "rollout_globality"]["head"]) == {"mean"}
    assert len(table) == 5 * 3 * (5 * 9 + 1)


def test_values_are_the_measures_of_the_maps(model: PlantedViT, profile: AttentionProfile) -> None:
    with torch.no_grad(), capture_attention(model) as captured:
        model(noise(5))
    names = [name for name in MEASURES if name != "rollout_globality"]
    rolled = None
    for block, weights in enumerate(captured.results):
        mean = weights.mean(dim=1, keepdim=True)
        expected = measure_maps(torch.cat([mean, weights], 1), names, (8, 8), (4.0, 4.0), (1.0, 2.0))
        for place, name in enumerate(names):
            found = profile.values[:, block, :, profile.measures.index(name)]
            np.testing.assert_allclose(found, expected[..., place].numpy(), atol=1e-5, err_msg=name)
        rolled = rollout(mean[:, 0], rolled)
        np.testing.assert_allclose(profile.of("rollout_globality")[:, block], globality(rolled, (8, 8)), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_make_no_difference(model: PlantedViT, profile: AttentionProfile, batch_size: int) -> None:
    again = profile_attention(model, noise(5), spacing=(1.0, 2.0), batch_size=batch_size)
    np.testing.assert_allclose(again.values, profile.values, atol=1e-5)


def test_blocks_that_are_measured_together_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where fewer and larger operations are faster."""
    torch.manual_seed(0)
    for model in (
        timm.create_model("vit_tiny_patch16_224", img_size=64, embed_dim=48, depth=3),  # with a class token
        vitrim.create_model("unetr2d", num_classes=2, in_chans=3, size="micro", width=0.125, image_size=64, depth=3),
    ):
        images, names = torch.randn(5, 3, 64, 64), ["globality", "self_share", "distance_mm"]
        measure = partial(profile_attention, model, images, measures=names, spacing=(1.0, 2.0), batch_size=2)
        apart = measure()
        with monkeypatch.context() as patch:
            patch.setattr("vitrim.attention.profiling.measures_together", lambda call: True)
            together = measure()
        np.testing.assert_allclose(together.values, apart.values, rtol=1e-5)
        assert together.layers == apart.layers


def test_slices_are_averaged_within_their_case(model: PlantedViT, profile: AttentionProfile) -> None:
    def stream() -> Iterator[tuple[str, Tensor, Any]]:
        yield "first", noise(5)[:3], None
        yield "second", noise(5)[3:], None

    by_case = profile_attention(model, stream(), batch_size=2)
    assert by_case.cases == ("first", "second")
    assert by_case.slices == (3, 2)
    each = profile.of("globality")
    np.testing.assert_allclose(by_case.of("globality"), [each[:3].mean(axis=0), each[3:].mean(axis=0)], atol=1e-6)
    named = profile_attention(model, noise(5), cases=["first"] * 3 + ["second"] * 2)
    np.testing.assert_allclose(named.of("globality"), by_case.of("globality"), atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"image": x, "label": None}, lambda x: (x, 0)])
def test_a_loader_gives_each_image_a_case(model: PlantedViT, profile: AttentionProfile, wrap: Any) -> None:
    loaded = profile_attention(model, [wrap(part) for part in noise(5).split(2)])
    assert loaded.cases == profile.cases
    np.testing.assert_allclose(loaded.of("globality"), profile.of("globality"), atol=1e-6)


def test_millimetres_use_each_case_s_own_spacings_and_are_absent_where_there_are_none(model: PlantedViT) -> None:
    image = noise(1)
    stream = [("fine", image, (0.5, 0.5)), ("tall", image, (2.0, 0.5)), ("unknown", image, None)]
    found = profile_attention(model, stream)
    fine, tall, unknown = found.of("distance_mm")
    np.testing.assert_allclose(fine, 0.5 * found.of("distance_pixels")[0], rtol=1e-5)
    assert (tall > fine).all()
    assert np.isnan(unknown).all()
    table = found.table()
    assert set(table[table["measure"] == "distance_mm"]["case"]) == {"fine", "tall"}
    assert "distance_mm" not in profile_attention(model, image).measures


def test_grids_that_are_not_square_are_measured(model: PlantedViT) -> None:
    wide = profile_attention(model, torch.randn(2, 1, 16, 40))
    assert wide.grid == (4, 10)
    assert wide.patch == (4.0, 4.0)
    assert wide.of("globality")[:, 0].max() < 0.4 < 0.8 < wide.of("globality")[:, 1].min()


def test_only_the_measures_asked_for_are_there(model: PlantedViT) -> None:
    found = profile_attention(model, noise(2), measures=["entropy", "globality"])
    assert found.measures == ("globality", "entropy")
    with pytest.raises(InputError, match="does not hold 'self_share'; it holds globality, entropy"):
        found.of("self_share")
    with pytest.raises(InputError, match="no such head: 9"):
        found.of("entropy", 9)


def test_the_proximity_correlation_says_how_many_queries_it_looked_at(model: PlantedViT) -> None:
    few = profile_attention(model, noise(2), measures=["proximity_correlation"], queries=10)
    every = profile_attention(model, noise(2), measures=["proximity_correlation"], queries=1000)
    assert (few.queries, every.queries) == (10, 64)
    assert abs(few.values - every.values).max() < 0.2


def test_a_profile_comes_back_from_its_files(profile: AttentionProfile, tmp_path: Path) -> None:
    profile.save(tmp_path / "attention")
    assert sorted(path.name for path in (tmp_path / "attention").iterdir()) == ["profile.csv", "profile.json"]
    again = AttentionProfile.load(tmp_path / "attention")
    np.testing.assert_array_equal(again.values, profile.values)
    for name in ("cases", "slices", "layers", "heads", "measures", "grid", "prefix_tokens", "patch", "queries"):
        assert getattr(again, name) == getattr(profile, name), name


def test_names_that_look_like_something_else_come_back_too(model: PlantedViT, tmp_path: Path) -> None:
    names = ["007", "NA", 'a "quoted", name']
    profile_attention(model, noise(3), cases=names, measures=["globality"]).save(tmp_path)
    again = AttentionProfile.load(tmp_path)
    assert again.cases == tuple(names)
    assert not np.isnan(again.values).any()


def test_a_profile_that_is_not_there_or_broken_is_an_error(profile: AttentionProfile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no attention profile in"):
        AttentionProfile.load(tmp_path / "nothing")
    profile.save(tmp_path)
    (tmp_path / "profile.json").write_text('{"format": "something else"}')
    with pytest.raises(InputError, match="something else"):
        AttentionProfile.load(tmp_path)
    (tmp_path / "profile.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*profile.json"):
        AttentionProfile.load(tmp_path)


def test_progress_is_told_after_each_batch(model: PlantedViT) -> None:
    told: list[int] = []
    profile_attention(model, noise(5), measures=["globality"], batch_size=2, progress=told.append)
    assert told == [2, 4, 5]


def test_images_that_cannot_be_used_are_refused(model: PlantedViT) -> None:
    refusals = [
        (noise(2)[0], "must be"),
        ([("empty", noise(2)[:0], None)], "images of case empty must be"),
        (torch.randn(2, 3, 32, 32), "cannot take images of 3×32×32"),
        ([noise(1), noise(1, size=64)], "several sizes"),
        ([torch.randn(1, 1, 16, 64), torch.randn(1, 1, 64, 16)], "images of 16×64 and of 64×16 pixels"),
        ([], "no images"),
        (torch.full((2, 1, 32, 32), math.nan), "not finite for case 0"),
    ]
    for images, reason in refusals:
        with pytest.raises(InputError, match=reason):
            profile_attention(model, images)
    with pytest.raises(InputError, match="1 case ids for 2 images"):
        profile_attention(model, noise(2), cases=["a"])
    with pytest.raises(InputError, match="64 tokens, which is not a grid of 7×7 and 1 tokens before it"):
        profile_attention(model, noise(2), grid=(7, 7), prefix_tokens=1)


def test_layers_can_be_chosen_where_a_model_has_other_attention() -> None:
    class Decoded(nn.Module):
        """An encoder without `blocks`, and a decoder with 5 queries: self-attention, then attention to the tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = planted(1, depth=2)
            self.queries = nn.Parameter(torch.randn(5, 40))
            self.itself = nn.MultiheadAttention(40, 4, batch_first=True)
            self.across = nn.MultiheadAttention(40, 4, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.encoder(images)
            queries = self.queries.expand(len(images), -1, -1)
            queries, _ = self.itself(queries, queries, queries)
            return self.across(queries, tokens, tokens)[0]

    model = Decoded()
    with pytest.raises(InputError, match=r"'itself' has 5 tokens and another one 64.*layers="):
        profile_attention(model, noise(2))
    found = profile_attention(model, noise(2), layers="encoder.*")
    assert found.layers == ("encoder.blocks.0.attn", "encoder.blocks.1.attn")
    with pytest.raises(InputError, match="Decoded has no self-attention of patches in the layers"):
        profile_attention(model, noise(2), layers="across")


def test_no_map_outlives_its_reduction(model: PlantedViT, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = profile_attention(model, noise(6))
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    compute = DotProduct.compute

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        alive.append(sum(reference() is not None for reference in made))
        weights = compute(*args, **kwargs)
        made.append(weakref.ref(weights))
        return weights

    monkeypatch.setattr(DotProduct, "compute", watched)
    monkeypatch.setattr("vitrim.attention.softmax.PART_BYTES", {"cpu": 4 * 64 * 64})
    found = profile_attention(model, noise(6), batch_size=2)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    assert len(made) == 6 * 3 * 4  # images, blocks, heads: one map at a time
    assert max(alive) <= 1
