"""Preprocessing and its inverse."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Volume
from vitrim.data.preprocessing import Preprocessing, restore
from vitrim.data.readers import read_cases
from vitrim.data.volumes import load_volume
from vitrim.metrics.segmentation import case_metrics


def volume(shape: tuple[int, int, int], orientation: str = "RAS", channels: int = 1, seed: int = 0) -> Volume:
    """A random volume with array axes in `orientation` and voxels of 1×2×3 mm."""
    rng = np.random.default_rng(seed)
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
        ),
        shape,
    )
    spacing = (1.0, 2.0, 3.0)
    return Volume(
        rng.normal(50, 20, (channels, *shape)).astype(np.float32),
        rng.integers(0, 4, shape).astype(np.uint8),
        affine @ np.diag([*spacing, 1.0]),
        spacing,
    )


def test_every_volume_ends_with_zero_mean_and_unit_deviation() -> None:
    prepared = Preprocessing.from_config(DataConfig(image_size=16)).apply(volume((16, 16, 4), channels=2))
    assert prepared.images.shape == (4, 2, 16, 16)
    assert prepared.images.dtype == np.float32
    np.testing.assert_allclose(prepared.images.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(prepared.images.std((0, 2, 3)), 1, atol=1e-5)


def test_probabilities_come_back_smooth_and_outside_the_crop_as_asked() -> None:
    config = DataConfig(image_size=48, axis=0, crop=(12, 10))
    record = Preprocessing.from_config(config).apply(volume((3, 20, 16))).record
    ramp = np.broadcast_to(np.linspace(0, 1, 48, dtype=np.float32)[:, None], (3, 48, 48)).copy()
    found = restore(ramp, record, outside=0.25)
    assert found.shape == (3, 20, 16)
    inside = found[:, 4:16, 3:13]
    centres = (np.arange(12) + 0.5) * 4 - 0.5
    np.testing.assert_allclose(inside, np.broadcast_to(centres[:, None] / 47, inside.shape), atol=1e-6)
    cut = np.ones(found.shape, bool)
    cut[:, 4:16, 3:13] = False
    assert (found[cut] == 0.25).all()


def test_a_constant_image_becomes_zero_and_not_nan() -> None:
    flat = volume((16, 16, 4))
    flat.image[:] = 7
    assert (Preprocessing.from_config(DataConfig(image_size=16)).apply(flat).images == 0).all()


def test_clipping_comes_before_normalising() -> None:
    config = DataConfig(image_size=16, clip=(40, 60))
    prepared = Preprocessing.from_config(config).apply(volume((16, 16, 4)))
    assert prepared.images.std() == pytest.approx(1, abs=1e-5)
    assert len(np.unique(prepared.images.max((1, 2, 3)))) == 1


def test_a_range_of_intensities_becomes_zero_to_one() -> None:
    one = volume((16, 16, 4))
    config = DataConfig(image_size=16, clip=(40, 60), normalize="unit")
    images = Preprocessing.from_config(config).apply(one).images
    expected = (one.image[0].clip(40, 60) - 40) / 20
    np.testing.assert_allclose(np.sort(images, axis=None), np.sort(expected, axis=None), atol=1e-6)
    with pytest.raises(ValueError, match="give clip"):
        DataConfig(normalize="unit")


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "ASR", "SLP", "PIR"])
@pytest.mark.parametrize(
    ("axis", "down", "across"), [("axial", "P", "L"), ("coronal", "I", "L"), ("sagittal", "I", "P")]
)
def test_slices_are_shown_as_a_radiologist_sees_them(orientation: str, axis: str, down: str, across: str) -> None:
    """A voxel at the patient's far left, back and bottom appears at that side of the slice in every orientation."""
    lying = volume((16, 16, 16), orientation)
    lying.image[:] = 0
    corner = [15 if direction in "LPI" else 0 for direction in nib.aff2axcodes(lying.affine)]
    lying.image[0][tuple(corner)] = 1
    prepared = Preprocessing.from_config(DataConfig(image_size=16, axis=axis, normalize="none")).apply(lying)
    number, _, row, column = np.argwhere(prepared.images)[0]
    assert row == (15 if down in "LPI" else 0)
    assert column == (15 if across in "LPI" else 0)
    assert number in (0, 15)


def test_an_array_axis_is_cut_without_turning() -> None:
    lying = volume((16, 32, 48), "LPI")
    config = DataConfig(image_size=(16, 48), axis=1, normalize="none")
    prepared = Preprocessing.from_config(config).apply(lying)
    np.testing.assert_array_equal(prepared.images[5, 0], lying.image[0][:, 5, :])


def test_a_pixel_knows_its_size_after_an_anisotropic_resize() -> None:
    lying = volume((20, 40, 10))  # 1×2×3 mm: an axial slice has 40 rows of 2 mm and 20 columns of 1 mm
    prepared = Preprocessing.from_config(DataConfig(image_size=(16, 32))).apply(lying)
    assert prepared.pixel_spacing == pytest.approx((80 / 16, 20 / 32))
    cropped = Preprocessing.from_config(DataConfig(image_size=(16, 32), crop=(8, 8))).apply(lying)
    assert cropped.pixel_spacing == pytest.approx((16 / 16, 8 / 32))
    lying.spacing = None
    assert Preprocessing.from_config(DataConfig(image_size=16)).apply(lying).pixel_spacing is None


def test_what_was_cut_away_comes_back_as_background() -> None:
    whole = volume((20, 20, 4))
    assert whole.label is not None
    whole.label[:] = 1
    preparation = Preprocessing.from_config(DataConfig(image_size=16, crop=(16, 16)))
    prepared = preparation.apply(whole)
    assert prepared.labels is not None
    back = preparation.restore(prepared.labels, prepared.record)
    assert back[2:18, 2:18].all()
    assert back.sum() == 16 * 16 * 4


def test_a_slice_smaller_than_the_crop_is_padded_with_the_darkest_value() -> None:
    small = volume((10, 16, 4))
    prepared = Preprocessing.from_config(DataConfig(image_size=16, crop=(16, 16), normalize="none")).apply(small)
    assert (prepared.images[..., :3] == small.image.min()).all()
    assert prepared.labels is not None
    assert (prepared.labels[..., :3] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    orientation=st.sampled_from(["RAS", "LPS", "LPI", "ASR", "SLP", "PIR", "ILA", "RSA"]),
    axis=st.sampled_from(["axial", "coronal", "sagittal", 0, 1, 2]),
    seed=st.integers(0, 1000),
)
def test_labels_come_back_to_the_bit_where_nothing_is_shrunk(
    shape: tuple[int, int, int], orientation: str, axis: str | int, seed: int
) -> None:
    """Nearest-neighbour enlargement, padding and reordered axes lose nothing; the record can be stored as JSON."""
    before = volume(shape, orientation, seed=seed)
    preparation = Preprocessing.from_config(DataConfig(image_size=64, axis=axis, crop=(48, 48)))
    prepared = preparation.apply(before)
    assert prepared.labels is not None
    back = preparation.restore(prepared.labels, json.loads(json.dumps(prepared.record)))
    np.testing.assert_array_equal(back, before.label)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    crop=st.none() | st.tuples(st.integers(1, 60), st.integers(1, 60)),
    axis=st.sampled_from(["axial", "coronal", "sagittal", 0, 1, 2]),
)
def test_the_way_back_always_ends_on_the_original_grid(
    shape: tuple[int, int, int], crop: tuple[int, int] | None, axis: str | int
) -> None:
    preparation = Preprocessing.from_config(DataConfig(image_size=(32, 16), axis=axis, crop=crop))
    prepared = preparation.apply(volume(shape))
    assert prepared.images.shape[1:] == (1, 32, 16)
    assert prepared.labels is not None
    assert preparation.restore(prepared.labels, prepared.record).shape == shape


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("msd_hippocampus", "hippocampus_003"),
        ("sunnybrook_lv", "sunnybrook_SC-HF-I-01"),
        ("totalseg_example_ct", "totalseg_example"),
    ],
)
def test_real_labels_survive_the_networks_224(shared: Path, name: str, case: str) -> None:
    config = DataConfig()
    case_set = read_cases(config, shared / "data" / name)
    real = load_volume(case_set.case(case), case_set)
    preparation = Preprocessing.from_config(config)
    prepared = preparation.apply(real)
    assert prepared.labels is not None
    assert real.label is not None
    back = preparation.restore(prepared.labels, prepared.record)
    for row in case_metrics(back, real.label, case_set.classes, real.spacing):
        assert row["dice"] > 0.98, row


def test_a_thin_ring_on_a_grid_finer_than_the_networks_loses_a_little(shared: Path) -> None:
    """Scaling 256 to 224 drops every eighth row, which costs a real myocardium 3 % of Dice."""
    config = DataConfig()
    case_set = read_cases(config, shared / "data" / "sunnybrook_lv_myo")
    for case in case_set.cases:
        real = load_volume(case, case_set)
        prepared = Preprocessing.from_config(config).apply(real)
        assert prepared.labels is not None
        assert real.label is not None
        rows = case_metrics(
            Preprocessing.from_config(config).restore(prepared.labels, prepared.record), real.label, case_set.classes
        )
        assert [row["dice"] > limit for row, limit in zip(rows, (0.96, 0.99), strict=True)] == [True, True]


@pytest.mark.parametrize("orientation", ["RAS", "LIA", "SPL"])
def test_through_plane_cuts_as_the_scanner_did(orientation: str) -> None:
    thick = volume((20, 30, 6), orientation)  # the third array axis has voxels of 3 mm
    assert len(Preprocessing.from_config(DataConfig(axis="through-plane")).apply(thick).images) == 6
