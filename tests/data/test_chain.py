"""The control `chain` is what it says: its labels follow from its picture, and from nothing nearer than its links."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vitrim.config.reading import load_study
from vitrim.config.schema import PhantomConfig, StudyConfig
from vitrim.data.phantoms import chain
from vitrim.data.phantoms.make import draw_phantom
from vitrim.errors import ConfigurationError
from vitrim.studies.control import reach_lines

SPACING = (1.0, 1.0, 1.0)


def scenes(hops: int, **options: object) -> list[tuple[np.ndarray, np.ndarray]]:
    """The slices of one case, without noise: images and labels (96, 96)."""
    config = PhantomConfig.model_validate({"kind": "chain", "cases": 2, "hops": hops, "noise": 0, **options})
    drawing = draw_phantom(config, 0, (96, 96, 4), SPACING)
    return [(drawing.image[..., n], drawing.label[..., n]) for n in range(4)]


def read(image: np.ndarray) -> dict[tuple[int, int], tuple[bytes, bytes, int, int]]:
    """Read a scene from its picture alone: own symbol, symbol of the link, bit and number of links of each patch."""
    found = {}
    for row in range(image.shape[0] // 16):
        for column in range(image.shape[1] // 16):
            patch = image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            if (patch == chain.BACKGROUND).all():
                continue
            inside = patch[3:-3, 3:-3] > chain.BACKGROUND
            ring = [patch[edge, 8] for edge in range(3)]
            links = sum(value != chain.BACKGROUND for value in ring)
            found[row, column] = (inside[:5].tobytes(), inside[5:].tobytes(), int(ring[2] > 100), links)
    return found


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_class_of_a_patch_is_the_bit_at_the_end_of_its_chain(hops: int) -> None:
    counted: Counter[int] = Counter()
    for image, label in scenes(hops):
        patches = read(image)
        by_symbol = {own: place for place, (own, *_) in patches.items()}
        assert len(patches) == len(by_symbol) == 16
        for (row, column), (_, here, _, links) in patches.items():
            for _ in range(links - 1):
                here = patches[by_symbol[here]][1]
            bit = patches[by_symbol[here]][2]
            own = label[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert set(np.unique(own)) == {1 + 2 * (links - 1) + bit}
            counted[int(own[0, 0])] += 1
        assert np.count_nonzero(label) == 16 * 16 * 16
    assert set(counted) == set(range(1, 2 * hops + 1))


def test_linked_patches_are_far_apart_and_form_one_cycle() -> None:
    for image, _ in scenes(2):
        patches = read(image)
        by_symbol = {own: place for place, (own, *_) in patches.items()}
        start = here = next(iter(patches))
        seen = []
        while here not in seen:
            seen.append(here)
            following = by_symbol[patches[here][1]]
            assert np.hypot(*np.subtract(here, following)) >= chain.APART
            here = following
        assert (here, len(seen)) == (start, 16)


def test_symbols_are_drawn_anew_so_there_is_no_table_to_learn() -> None:
    symbols = [own for image, _ in scenes(1) for own, *_ in read(image).values()]
    assert len(set(symbols)) == len(symbols) == 64


def test_bits_and_links_of_a_balanced_scene_are_equally_frequent() -> None:
    for image, _ in scenes(2):
        patches = read(image).values()
        assert Counter(patch[2] for patch in patches) == {0: 8, 1: 8}
        assert Counter(patch[3] for patch in patches) == {1: 8, 2: 8}


def test_the_planted_depth_grows_with_the_logarithm_of_the_links() -> None:
    assert [chain.planted_depth(links) for links in (1, 2, 3)] == [1, 2, 2]


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"hops": 4}, (96, 96, 1), "1 to 3 links"),
        ({"places": 40}, (96, 96, 1), "places can be 3 to 36"),
        ({"places": 36}, (32, 32, 1), "places can be 3 to 4"),
        ({}, (96, 90, 1), "whole patches"),
        ({"places": 9}, (48, 48, 1), "no cycle"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, int], shape: tuple[int, int, int], message: str) -> None:
    config = PhantomConfig.model_validate({"kind": "chain", "cases": 2, **options})
    with pytest.raises(ConfigurationError, match=message):
        draw_phantom(config, 0, shape, SPACING)


def test_a_study_says_what_is_planted_and_how_far_the_cnn_reaches() -> None:
    content = load_study("demo").model_dump(mode="json")
    content["data"] |= {"phantom": {"kind": "chain", "cases": 20, "hops": 2}, "clip": None}
    content["networks"] = {"cats2d": {"backbone": "resnet10t"}, "unetr2d": {}}
    lines = reach_lines(StudyConfig.model_validate(content))
    assert lines[0] == "chain: 16 patches in use, up to 2 links: 2 blocks are planted"
    assert len(lines) == 2
    assert lines[1].startswith("cats2d without its transformer reaches")
    assert lines[1].endswith("train depth 0 too, to show whether the CNN can follow a link")


def test_a_small_grid_has_nearer_links() -> None:
    config = PhantomConfig.model_validate({"kind": "chain", "cases": 2, "noise": 0, "balanced": False})
    drawing = draw_phantom(config, 0, (64, 64, 4), SPACING)
    for n in range(4):
        patches = read(drawing.image[..., n])
        by_symbol = {own: place for place, (own, *_) in patches.items()}
        assert len(patches) == 16
        for here, (_, following, *_) in patches.items():
            assert np.hypot(*np.subtract(here, by_symbol[following])) >= chain.apart(4, 4) == 2
