"""Scaling as in the public TransUNet code: the result equals `scipy.ndimage.zoom` of each slice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vitrim.config.schema import DataConfig
from vitrim.data.cache import entry_name
from vitrim.data.cases import Case, CaseSet, Volume
from vitrim.data.preprocessing import Preprocessing, restore
from vitrim.data.recipe import Recipe

ZOOM = DataConfig(image_size=(224, 48), axis=0, normalize="none", scaling="zoom")


def stack(rows: int, columns: int, seed: int = 0, spacing: tuple[float, float, float] | None = None) -> Volume:
    """Two slices along the first axis, with two channels (noise and edges) and labels."""
    rng = np.random.default_rng(seed)
    shape = (2, rows, columns)
    label = rng.integers(0, 9, shape).astype(np.uint8)
    image = np.stack([rng.uniform(0, 1, shape), label > 4]).astype(np.float32)
    return Volume(image, label, np.eye(4), spacing)


@settings(max_examples=80, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 300), seed=st.integers(0, 1000))
@example(rows=512, columns=512, seed=0)
@example(rows=224, columns=48, seed=0)
@example(rows=224, columns=512, seed=0)
def test_slices_are_those_of_scipys_zoom(rows: int, columns: int, seed: int) -> None:
    before = stack(rows, columns, seed)
    prepared = Preprocessing.from_config(ZOOM).apply(before)
    factors = 224 / rows, 48 / columns
    assert prepared.labels is not None
    assert before.label is not None
    for n in range(2):
        np.testing.assert_array_equal(prepared.labels[n], ndimage.zoom(before.label[n], factors, order=0))
        for channel in range(2):
            expected = ndimage.zoom(before.image[channel, n], factors, order=3)
            np.testing.assert_allclose(prepared.images[n, channel], expected, atol=1e-5)  # intensities go from 0 to 1


@settings(max_examples=80, deadline=None)
@given(rows=st.integers(1, 700), columns=st.integers(1, 300), seed=st.integers(0, 1000))
@example(rows=512, columns=512, seed=0)
@example(rows=699, columns=48, seed=0)
def test_label_maps_come_back_as_scipys_zoom_brings_them_back(rows: int, columns: int, seed: int) -> None:
    record = Preprocessing.from_config(ZOOM).apply(stack(rows, columns)).record
    labels = np.random.default_rng(seed).integers(1, 9, (2, 224, 48)).astype(np.uint8)
    found = restore(labels, json.loads(json.dumps(record)))
    for n in range(2):
        np.testing.assert_array_equal(found[n], ndimage.zoom(labels[n], (rows / 224, columns / 48), order=0))


def test_scipy_leaves_out_the_last_row_for_some_sizes_and_so_do_we() -> None:
    """scipy computes its position in floating point, beyond the end. The release's 512 to 224 is such a case."""
    full = stack(512, 512)
    full.image[:] = 1
    images = Preprocessing.from_config(ZOOM).apply(full).images
    assert images[..., :-1, :].min() > 0.9
    assert not images[..., -1, :].any()
    labels = np.ones((2, 224, 48), np.uint8)
    found = restore(labels, Preprocessing.from_config(ZOOM).apply(stack(699, 48)).record)
    assert found[:, :-1].all()
    assert not found[:, -1].any()


def test_probabilities_come_back_with_the_corners_in_the_corners() -> None:
    record = Preprocessing.from_config(ZOOM).apply(stack(7, 13)).record
    ramp = np.linspace(0, 1, 224, dtype=np.float32)[:, None] + np.linspace(0, 1, 48, dtype=np.float32)
    found = restore(np.stack([ramp, 2 * ramp]), record)
    expected = np.linspace(0, 1, 7)[:, None] + np.linspace(0, 1, 13)
    np.testing.assert_allclose(found, np.stack([expected, 2 * expected]), atol=1e-5)


def test_a_pixel_is_a_step_between_corners() -> None:
    spacing = Preprocessing.from_config(ZOOM).apply(stack(101, 49, spacing=(5.0, 2.0, 1.0))).pixel_spacing
    assert spacing == pytest.approx((2 * 100 / 223, 48 / 47))
    assert Preprocessing.from_config(ZOOM).apply(stack(1, 48, spacing=(5.0, 2.0, 1.0))).pixel_spacing == pytest.approx(
        (2 / 224, 1)
    )


def test_what_was_stored_before_there_was_a_choice_is_linear_and_keeps_its_names(tmp_path: Path) -> None:
    """A preparation.json without `scaling` can be read, and existing cache entries keep their names."""
    stored = DataConfig(image_size=32).model_dump(mode="json")
    del stored["scaling"]
    data = Recipe.parse({"data": stored, "classes": {"0": "background"}}, "preparation.json").data
    file = tmp_path / "image"
    file.write_bytes(b"abc")
    case = Case("c", (file,), None)
    cases = CaseSet("decathlon", tmp_path, (case,), {0: "background", 1: "organ"}, {0: 0, 1: 1})
    assert data.scaling == "linear"
    assert entry_name(case, cases, Preprocessing.from_config(data)) == "6d1f1f565772266e007ab331b62828f9"
    zoomed = Preprocessing.from_config(data.model_copy(update={"scaling": "zoom"}))
    assert entry_name(case, cases, zoomed) != "6d1f1f565772266e007ab331b62828f9"
