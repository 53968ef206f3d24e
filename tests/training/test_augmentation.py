"""Augmentation: drawn from seed, epoch and slice alone, alike for image and label, and off unless it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader, Dataset

from tests.training.test_loop import KilledAt, KilledError, Squares, config, network
from vitrim.config.names import IntensityTransform, SpatialTransform
from vitrim.config.reading import load_study, parse_study, presets
from vitrim.data.sampling import Batches, Shuffled
from vitrim.errors import ConfigurationError, InputError
from vitrim.training.augmentation import Augmented, check_augmentation
from vitrim.training.loop import train_network

NEEDED = {
    "RandRotate": {"range_x": 0.3},
    "RandAffine": {"rotate_range": 0.3, "scale_range": [0.1, 0.1]},
    "Rand2DElastic": {"spacing": [10, 10], "magnitude_range": [1, 2]},
    "RandScaleIntensity": {"factors": 0.3},
    "RandShiftIntensity": {"offsets": 0.3},
    "RandCoarseDropout": {"holes": 2, "spatial_size": 6},
    "RandSimulateLowResolution": {"upsample_mode": "bilinear"},
}
"""Parameters without which a transform does nothing or cannot be made."""

SPATIAL, INTENSITY = get_args(SpatialTransform), get_args(IntensityTransform)


def always(name: str) -> list[dict]:
    return [{name: {**NEEDED.get(name, {}), "prob": 1.0}}]


class Scenes(Dataset):
    """Images of 48 × 48 with two channels; the first shows the label, 0 to 3, as intensities 0 to 3."""

    def __init__(self, size: tuple[int, int] = (48, 48)) -> None:
        self.size = size

    def __len__(self) -> int:
        return 5

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        label = torch.zeros(self.size, dtype=torch.uint8)
        label[8 + item : 26, 6:20] = 1
        label[20:40, 22 + item : 36] = 2
        label[4:12, 30:44] = 3
        noise = torch.randn(self.size, generator=torch.Generator().manual_seed(item))
        return {"image": torch.stack([label.float(), noise]), "label": label}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("image", "label"))


@pytest.mark.parametrize("augment", ["light", "medical", *(always(name) for name in (*SPATIAL, *INTENSITY))], ids=str)
def test_the_same_number_gives_the_same_bytes_in_every_process_and_order(augment) -> None:
    changing = Augmented(Scenes(), augment, seed=7)
    numbers = list(range(15))
    here = [changing[number] for number in numbers]
    there = list(DataLoader(changing, sampler=numbers[::-1], batch_size=None, num_workers=2))[::-1]
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    assert all(item["image"].dtype == torch.float32 and item["label"].dtype == torch.uint8 for item in here)
    assert any(not same(item, Scenes()[number % 5]) for number, item in enumerate(here))


@pytest.mark.parametrize("augment", ["light", "medical"])
def test_another_seed_and_another_epoch_draw_anew(augment: str) -> None:
    first, other = Augmented(Scenes(), augment, seed=1), Augmented(Scenes(), augment, seed=2)
    assert any(not same(first[number], other[number]) for number in range(20))
    assert any(not same(first[number], first[number + 5 * epoch]) for number in range(5) for epoch in range(1, 4))


@pytest.mark.parametrize("name", SPATIAL)
def test_labels_go_where_the_image_goes(name: str) -> None:
    """Away from edges, an image that shows its label still shows it after the change."""
    changing = Augmented(Scenes(), always(name), seed=3)
    for number in range(10):
        item = changing[number]
        image, label = item["image"][0].numpy(), item["label"].numpy()
        inside = np.ones(label.shape, bool)
        for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
            inside &= np.roll(label, shift, axis) == label
        assert set(np.unique(label)) <= {0, 1, 2, 3}
        assert (np.abs(image - label)[inside] < 0.5).mean() > 0.99


@pytest.mark.parametrize("name", INTENSITY)
def test_a_change_of_intensities_leaves_labels_alone(name: str) -> None:
    changing = Augmented(Scenes(), always(name), seed=3)
    assert all(torch.equal(changing[number]["label"], Scenes()[number]["label"]) for number in range(5))
    assert any(not torch.equal(changing[number]["image"], Scenes()[number]["image"]) for number in range(5))


def test_light_is_half_quarter_turns_with_a_flip_a_quarter_turns_and_a_quarter_nothing() -> None:
    changing, plain = Augmented(Scenes(), "light", seed=0), Scenes()
    kinds = {"nothing": 0, "turned and flipped": 0, "rotated": 0}
    for number in range(400):
        item, before = changing[number], plain[number % 5]
        flips = [torch.rot90(before["image"], k, (1, 2)).flip(axis) for k in range(4) for axis in (1, 2)]
        if same(item, before):
            kinds["nothing"] += 1
        elif any(torch.equal(item["image"], flip) for flip in flips):
            kinds["turned and flipped"] += 1
        else:
            kinds["rotated"] += 1
    assert kinds["turned and flipped"] == pytest.approx(200, abs=40)
    assert kinds["rotated"] == pytest.approx(100, abs=35)
    assert kinds["nothing"] == pytest.approx(100, abs=35)


def test_medical_does_not_flip() -> None:
    """The centre of the class on the right stays on the right."""
    changing = Augmented(Scenes(), "medical", seed=0)
    for number in range(60):
        label = changing[number]["label"]
        assert (label == 3).nonzero()[:, 1].float().mean() > (label == 1).nonzero()[:, 1].float().mean()


def test_batches_number_slices_through_all_epochs() -> None:
    order = Shuffled(6, seed=0)
    plain, numbered = Batches(order, 2), Batches(order, 2, numbered=True)
    for epoch in range(3):
        order.set_epoch(epoch)
        expected = [[item + 6 * epoch for item in batch] for batch in plain]
        assert list(numbered) == expected
    parts = [list(Batches(order, 2, rank, 2, numbered=True)) for rank in range(2)]
    assert [[*one, *two] for one, two in zip(*parts, strict=True)] == list(numbered)


def test_a_training_with_augmentation_ends_the_same_however_often_it_dies_and_with_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augment = "medical"  # tests/studies/test_killed.py does it with `light`
    monkeypatch.setattr("vitrim.training.resume.SHARE", float("inf"))  # a state after every step
    whole, settings = network(), config(augment=augment)
    expected = train_network(whole, Squares(), settings, 3)
    state, deaths = tmp_path / "state", 0
    while True:
        again = network()
        try:
            found = train_network(
                again, Squares(), config(augment=augment, workers=deaths % 3), 3, state=state, watch=KilledAt(3)
            )
        except KilledError:
            deaths += 1
        else:
            break
    assert deaths >= 2
    assert found.losses == expected.losses
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert expected.losses != train_network(network(), Squares(), config(), 3).losses


@pytest.mark.slow
def test_several_devices_see_the_same_changed_slices(tmp_path: Path) -> None:
    settings = {"steps": 3, "augment": "light"}
    expected = train_network(network(), Squares(), config(**settings), 3).losses
    found = train_network(network(), Squares(), config(**settings, devices=2), 3, state=tmp_path / "state").losses
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"RandFlip": {"prb": 1}}, "augment.0: RandFlip: .*prb"),
        ({"RandFlip": {"spatial_axis": 5}}, "augment.0: RandFlip: "),
        ({"RandZoom": {"min_zoom": "a"}}, "augment.0: RandZoom: "),
        ({"RandRotate": {"mode": "nearest"}}, "augment.0: RandRotate: .*mode"),
        ({"RandGaussianNoise": {"keys": ["label"]}}, "augment.0: RandGaussianNoise: .*keys"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_trained(entry: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refusal:
        check_augmentation([entry])
    assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigurationError, match=words):
        train_network(network(), Squares(), config(augment=[entry]), 3)


STUDY = yaml.safe_dump(
    {"name": "x", "data": {"image_size": 64}, "networks": {"unetr2d": {}}, "training": {"steps": 1, "augment": "none"}}
)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.augment=ligth", "training.augment: 'ligth' is unknown (did you mean 'light'?)"),
        ("training.augment=[{RandFlp: {prob: 1}}]", "'RandFlp' is unknown (did you mean 'RandFlip'?)"),
        ("training.augment=[{RandFlip: {prob: 2}}]", "prob of RandFlip is not a number from 0 to 1"),
        ("training.augment=[{RandFlip: {}, RandZoom: {}}]", "entry 0 is not one transform"),
        ("training.augment=[RandFlip]", "entry 0 is not one transform"),
        ("training.augment=3", "expected none, light, medical or a list"),
        ("training.checkpoint=first", "training.checkpoint: 'first' is unknown"),
    ],
)
def test_what_is_no_augmentation_is_refused_in_one_line(setting: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_study(STUDY, "mine.yaml", [setting])
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("augment", ["light", "[{RandRotate90: {prob: 0.5}}]"])
def test_quarter_turns_need_square_slices(augment: str) -> None:
    with pytest.raises(ConfigurationError, match="not square"):
        parse_study(STUDY, "mine.yaml", [f"training.augment={augment}", "data.image_size=[64, 96]"])
    changing = Augmented(Scenes((48, 64)), [{"RandRotate90": {"prob": 1.0, "max_k": 1}}], seed=0)
    with pytest.raises(InputError, match="quarter turns need square slices"):
        changing[0]


@pytest.mark.parametrize("name", presets())
def test_the_presets_change_no_slice_and_end_with_the_last_step(name: str) -> None:
    training = load_study(name).training
    assert (training.augment, training.checkpoint) == ("none", "last")
