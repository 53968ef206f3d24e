"""Dice, HD95 and surface Dice per case."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_mask_edges, get_surface_distance
from scipy import ndimage

from vitrim.config.schema import DataConfig
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.metrics.segmentation import case_metrics, hausdorff95, slice_dice, surface_dice, surface_distances

CLASSES = {0: "background", 1: "organ", 2: "lesion"}


def block(start: int, stop: int, value: int = 1, size: int = 12) -> np.ndarray:
    """A cube of `value` from `start` to `stop` along each axis."""
    volume = np.zeros((size, size, size), np.uint8)
    volume[start:stop, start:stop, start:stop] = value
    return volume


def row(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...] | None = None) -> dict[str, float]:
    return case_metrics(prediction, reference, CLASSES, spacing)[0]


def test_a_perfect_prediction_has_dice_one_and_no_distance() -> None:
    found = row(block(2, 6), block(2, 6))
    assert (found["dice"], found["hd95"]) == (1.0, 0.0)
    assert (found["reference_voxels"], found["predicted_voxels"]) == (64, 64)


def test_dice_is_twice_the_common_part_over_both() -> None:
    assert row(block(2, 6), block(3, 6))["dice"] == pytest.approx(2 * 27 / (64 + 27))


def test_distance_is_in_mm() -> None:
    reference, prediction = np.zeros((2, 12, 12, 12), np.uint8)
    reference[5, 5, 5] = prediction[5, 5, 8] = 1
    assert row(prediction, reference)["hd95"] == 3
    assert row(prediction, reference, (1.0, 1.0, 2.5))["hd95"] == 7.5


def test_surface_dice_is_the_share_of_both_surfaces_within_two_millimetres() -> None:
    reference, prediction = np.zeros((2, 12, 12, 12), np.uint8)
    reference[5, 5, 5:7] = prediction[5, 5, 5] = prediction[5, 5, 9] = 1
    # positions along the last axis: reference 5 and 6, prediction 5 and 9; distances 0 and 1, and 0 and 3
    assert row(prediction, reference, (1.0, 1.0, 1.0))["surface_dice"] == 3 / 4
    assert row(prediction, reference, (1.0, 1.0, 0.5))["surface_dice"] == 1
    assert row(prediction, reference, (1.0, 1.0, 3.0))["surface_dice"] == 2 / 4


def test_surface_dice_agrees_with_monais() -> None:
    reference, prediction = block(2, 7), block(3, 10)
    monai = compute_surface_dice(
        torch.from_numpy(prediction)[None, None].bool(),
        torch.from_numpy(reference)[None, None].bool(),
        class_thresholds=[2.0],
        include_background=True,
        spacing=[1.0, 1.0, 1.5],
    )
    assert 0 < row(prediction, reference, (1.0, 1.0, 1.5))["surface_dice"] < 1
    assert row(prediction, reference, (1.0, 1.0, 1.5))["surface_dice"] == pytest.approx(float(monai), abs=1e-6)


def test_a_missed_organ_counts_as_zero_and_as_far_away_as_can_be() -> None:
    found = row(np.zeros_like(block(2, 6)), block(2, 6), (1.0, 1.0, 2.0))
    assert (found["dice"], found["surface_dice"]) == (0, 0)
    assert found["hd95"] == pytest.approx(math.sqrt(12**2 + 12**2 + 24**2))


def test_an_organ_that_is_not_there_but_was_predicted_counts_as_zero() -> None:
    found = row(block(2, 6), np.zeros_like(block(2, 6)))
    assert found["dice"] == 0
    assert found["hd95"] == pytest.approx(math.sqrt(3 * 12**2))


def test_where_both_are_empty_the_case_does_not_count_but_stays_visible() -> None:
    rows = case_metrics(block(2, 6), block(2, 6), CLASSES)
    assert [entry["class"] for entry in rows] == ["organ", "lesion"]
    assert math.isnan(rows[1]["dice"])
    assert math.isnan(rows[1]["hd95"])
    assert math.isnan(rows[1]["surface_dice"])
    assert (rows[1]["reference_voxels"], rows[1]["predicted_voxels"]) == (0, 0)


def test_regions_may_overlap() -> None:
    reference = block(2, 6) + block(3, 5)  # a lesion (2) inside the organ (1)
    prediction = block(2, 6)
    rows = case_metrics(prediction, reference, CLASSES, regions={"whole": (1, 2), "lesion": (2,)})
    assert [entry["dice"] for entry in rows] == [1.0, 0.0]


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        case_metrics(block(2, 6), block(2, 6, size=13), CLASSES)


def test_dice_by_slice_leaves_out_empty_slices() -> None:
    reference, prediction = np.zeros((2, 4, 4, 3), np.uint8)
    reference[:, :, 0] = prediction[:, :, 0] = 1
    reference[:2, :, 1] = 1
    assert slice_dice(prediction, reference, {0: "background", 1: "organ", 2: "lesion"}) == pytest.approx(
        {"organ": 0.5, "lesion": math.nan}, nan_ok=True
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.02, 0.9))
def test_random_masks_agree_with_medpy(seed: int, share: float) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    rng = np.random.default_rng(seed)
    reference, prediction = (rng.random((2, 9, 8, 7)) < share).astype(np.uint8)
    reference[0, 0, 0] = prediction[-1, -1, -1] = 1
    spacing = tuple(rng.uniform(0.5, 4, 3).tolist())
    found = row(prediction, reference, spacing)
    assert found["dice"] == pytest.approx(binary.dc(prediction, reference), abs=1e-6)
    assert found["hd95"] == pytest.approx(binary.hd95(prediction, reference, voxelspacing=spacing), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "case"), [("msd_hippocampus", "hippocampus_003"), ("totalseg_example_ct", "totalseg_example")]
)
def test_real_masks_agree_with_medpy(shared: Path, name: str, case: str) -> None:
    """Compares each reference with a copy that is shifted by 2 voxels and eroded, plus one voxel far away."""
    binary = pytest.importorskip("medpy.metric.binary")
    case_set = read_cases(DataConfig(), shared / "data" / name)
    real = load_volume(case_set.case(case), case_set)
    assert real.label is not None
    moved = np.roll(real.label, 2, axis=1)
    moved[ndimage.binary_erosion(moved > 0) ^ (moved > 0)] = 0
    moved[0, 0, 0] = 1
    for index, found in enumerate(case_metrics(moved, real.label, case_set.classes, real.spacing), start=1):
        mine, theirs = moved == index, real.label == index
        assert found["dice"] == pytest.approx(binary.dc(mine, theirs), abs=1e-6)
        assert found["hd95"] == pytest.approx(binary.hd95(mine, theirs, voxelspacing=real.spacing), abs=1e-4)


def test_hd95_is_not_larger_than_monais_which_takes_the_worse_direction() -> None:
    reference, prediction = block(2, 6), block(2, 9)
    monai = compute_hausdorff_distance(
        torch.from_numpy(prediction)[None, None], torch.from_numpy(reference)[None, None], percentile=95
    )
    assert 0 < row(prediction, reference)["hd95"] <= float(monai)


@pytest.mark.parametrize("spacing", [None, (0.7, 1.3, 4.0)])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_distances_between_surfaces_are_monais(share: float, spacing: tuple[float, ...] | None) -> None:
    """Few voxels, many, and masks that fill the volume, so that their surfaces lie at its border."""
    prediction, reference = np.random.default_rng(3).random((2, 9, 8, 7)) < share
    mine, theirs = get_mask_edges(prediction, reference)
    expected = [get_surface_distance(*pair, spacing=spacing) for pair in ((mine, theirs), (theirs, mine))]
    assert np.array_equal(surface_distances(prediction, reference, spacing), np.concatenate(expected))


def test_dice_agrees_with_monais() -> None:
    reference, prediction = block(2, 7), block(3, 9)
    monai = compute_dice(torch.from_numpy(prediction)[None, None], torch.from_numpy(reference)[None, None])
    assert row(prediction, reference)["dice"] == pytest.approx(float(monai), abs=1e-6)


def test_a_single_slice_is_measured_in_its_plane() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = (np.kron(rng.random((8, 9)) < 0.4, np.ones((4, 4))).astype(bool) for _ in range(2))
    for measure in (hausdorff95, surface_dice):
        flat = measure(mine, theirs, (0.7, 1.3))
        assert measure(mine[:, :, None], theirs[:, :, None], (0.7, 1.3, 5.0)) == flat
        assert measure(mine[:, None], theirs[:, None], (0.7, 5.0, 1.3)) == flat
    empty = np.zeros_like(theirs)
    assert hausdorff95(empty[..., None], theirs[..., None]) == hausdorff95(empty, theirs) == np.hypot(32, 36)
