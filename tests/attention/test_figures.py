"""Figures show the given numbers and are written as PNG and PDF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tests.attention.planted import PlantedViT, noise, planted
from vitrim.attention.figures import (
    draw_decision,
    draw_image,
    draw_measure,
    draw_mosaic,
    draw_query,
    figure,
    write_map_figures,
    write_profile_figures,
)
from vitrim.attention.maps import StoredMaps, mosaic, raw_maps
from vitrim.attention.profiling import AttentionProfile, profile_attention
from vitrim.attention.rule import decide_depth
from vitrim.errors import InputError

MEASURES = ["globality", "entropy", "distance_patches", "rollout_globality"]
pytestmark = pytest.mark.usefixtures("rendered_figures")


@pytest.fixture(scope="module")
def profile() -> AttentionProfile:
    return profile_attention(planted(2, depth=4), noise(6), measures=MEASURES)


@pytest.fixture(scope="module")
def untrained() -> AttentionProfile:
    return profile_attention(PlantedViT(["uniform"] * 4), noise(6), measures=MEASURES)


def test_a_measure_shows_every_head_the_average_and_the_untrained_network(
    profile: AttentionProfile, untrained: AttentionProfile
) -> None:
    axis = Figure().subplots()
    assert draw_measure(profile, "globality", axis, untrained=untrained) is axis
    drawn = [np.asarray(line.get_ydata()) for line in axis.lines]
    for head in (1, 2, 3, 4):
        assert any(np.allclose(line, profile.of("globality", head).mean(axis=0)) for line in drawn)
    assert any(np.allclose(line, profile.of("globality").mean(axis=0)) for line in drawn)
    assert any(np.allclose(line, untrained.of("globality").mean(axis=0)) for line in drawn)
    assert len(axis.collections) == 1  # the interval
    assert axis.get_xlabel() == "block"


def test_the_rollout_has_no_heads_and_the_distance_a_unit(profile: AttentionProfile) -> None:
    axis = draw_measure(profile, "rollout_globality", Figure().subplots())
    assert len(axis.lines) == 1
    assert draw_measure(profile, "distance_patches", Figure().subplots()).get_ylabel() == "attention distance (patches)"


def test_the_decision_shows_values_threshold_and_what_is_discarded(
    profile: AttentionProfile, untrained: AttentionProfile
) -> None:
    decision = decide_depth(profile, untrained=untrained)
    axis = draw_decision(decision, Figure().subplots())
    labels = axis.get_legend_handles_labels()[1]
    assert labels == ["untrained", "threshold 2/3", "beyond the rule"]
    assert any(np.allclose(np.asarray(line.get_ydata()), decision.threshold) for line in axis.lines)
    without_interval = decide_depth(profile_attention(planted(2, depth=4), noise(2), measures=MEASURES))
    assert draw_decision(without_interval, Figure().subplots()).lines


def test_tiles_of_the_mosaic_lie_as_their_patches_do() -> None:
    grid = (2, 3)
    maps = np.arange(36.0).reshape(6, 6)
    tiles = mosaic(maps, grid)
    assert tiles.shape == (2 * 3 - 1, 3 * 4 - 1)
    for query in range(6):
        row, column = divmod(query, 3)
        tile = tiles[3 * row : 3 * row + 2, 4 * column : 4 * column + 3]
        np.testing.assert_array_equal(tile, maps[query].reshape(grid))
    assert np.isnan(tiles[2]).all()
    with pytest.raises(InputError, match="not over a grid of 3×3"):
        mosaic(maps, (3, 3))


def test_a_query_is_followed_through_all_blocks() -> None:
    model, image = planted(1, depth=3), noise(1)
    maps = raw_maps(model, image, blocks=None)
    axis = draw_query(image[0, 0].numpy(), maps, (8, 8), (2, 5), Figure().subplots(), columns=2)
    assert [text.get_text() for text in axis.texts] == ["block 1", "block 2", "block 3"]
    veil = np.asarray(axis.images[1].get_array())[..., 3]  # image and veil in turn
    assert veil[2, 5] == veil.max() > 1.5 * np.median(veil)  # a local block attends to the patch itself
    with pytest.raises(InputError, match=r"no patch \(8, 0\)"):
        draw_query(image[0, 0].numpy(), maps, (8, 8), (8, 0), Figure().subplots())


def test_all_figures_of_a_network_are_written_as_png_and_pdf(
    profile: AttentionProfile, untrained: AttentionProfile, tmp_path: Path
) -> None:
    decision = decide_depth(profile, untrained=untrained)
    written = write_profile_figures(profile, decision, tmp_path, untrained=untrained)
    maps = raw_maps(planted(2, depth=4), torch.randn(1, 1, 16, 32), blocks=None)
    stored = StoredMaps(
        "case", 3, np.zeros((16, 32)), (4, 8), tuple(maps), np.stack(list(maps.values())), shown=(1, 2, 3)
    )
    written += write_map_figures(stored, tmp_path)
    names = ["globality", "rollout_globality", "entropy", "distance_patches", "decision"]
    names += ["maps", "query", "query_rollout"]
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]
    assert sorted(written) == sorted(tmp_path.iterdir())
    for path in written:
        assert path.read_bytes().startswith(b"%PDF" if path.suffix == ".pdf" else b"\x89PNG")


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with figure(tmp_path / name) as drawn:
            left, right = drawn.subplots(1, 2)
            draw_image(noise(1)[0, 0].numpy(), left, title="image")
            draw_mosaic(np.full((4, 4), 0.25), (2, 2), right)
    for kind in (".png", ".pdf"):
        assert (tmp_path / f"first{kind}").read_bytes() == (tmp_path / f"second{kind}").read_bytes()
