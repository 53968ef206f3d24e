"""The seed decides a training: interrupted and resumed, or split among processes, it gives the same result."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from vitrim import create_model
from vitrim.config.schema import TrainConfig
from vitrim.data.sampling import Batches, Shuffled
from vitrim.errors import InputError
from vitrim.training.loop import train_network


class Squares(Dataset):
    """Ten different noisy 32 × 32 images, each with a bright square."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        label = torch.zeros(32, 32, dtype=torch.int64)
        label[item : item + 12, 5:20] = 1
        noise = torch.randn(label.shape, generator=torch.Generator().manual_seed(item))
        return {"image": (label + 0.3 * noise)[None].float(), "label": label}


def config(**changes) -> TrainConfig:
    plain = {"steps": 7, "batch_size": 4, "learning_rate": 1e-3, "precision": "32-true", "device": "cpu"}
    return TrainConfig.model_validate({**plain, **changes})


def network(name: str = "transunet"):
    torch.manual_seed(0)
    return create_model(
        name, num_classes=2, depth=2, size="micro", width=0.25, image_size=32, in_chans=1, backbone="resnet10t"
    )


class KilledError(Exception):
    pass


class KilledAt:
    """Raises KilledError at step `step`, as if the process had died."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, moment) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.mark.parametrize("length", [{"steps": 7}, {"steps": 8}, {"steps": None, "epochs": 4}])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_training_that_dies_again_and_again_ends_as_one_that_never_did(tmp_path, length, schedule):
    settings = config(schedule=schedule, **length)
    whole = network("unetr2d")
    expected = train_network(whole, Squares(), settings, 3)
    state, deaths = tmp_path / "state", 0
    while True:
        again = network("unetr2d")
        try:
            found = train_network(again, Squares(), settings, 3, state=state, watch=KilledAt(3))
        except KilledError:
            deaths += 1
        else:
            break
    assert deaths >= 2
    assert found.losses == expected.losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_state_is_written_after_the_first_step_and_then_by_time(tmp_path, monkeypatch):
    monkeypatch.setattr("vitrim.training.resume.SHARE", 1e-9)  # the second state would be due after a minute
    state, seen = tmp_path / "state", []
    with pytest.raises(KilledError):
        train_network(network(), Squares(), config(), 3, state=state, watch=KilledAt(5))
    train_network(network(), Squares(), config(), 3, state=state, watch=lambda moment: seen.append(moment.step))
    assert seen == [2, 3, 4, 5, 6, 7]


def test_a_signal_to_the_whole_group_is_for_the_main_process_alone():
    """As a scheduler sends it: the processes that read slices go on until the training ends."""
    readers: set[int] = set()

    def signal_all(moment) -> None:
        for child in multiprocessing.active_children():
            readers.add(child.pid)
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(child.pid, name)

    found = train_network(network(), Squares(), config(workers=2), 3, watch=signal_all)
    assert len(readers) == 2
    assert found.losses == train_network(network(), Squares(), config(), 3).losses


def test_a_training_resumes_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("vitrim.training.resume.SHARE", float("inf"))  # a state after every step
    expected = train_network(network(), Squares(), config(), 3).losses  # two steps an epoch
    state, seen = tmp_path / "state", []
    with pytest.raises(KilledError):
        train_network(network(), Squares(), config(), 3, state=state, watch=KilledAt(4))
    found = train_network(network(), Squares(), config(), 3, state=state, watch=lambda moment: seen.append(moment))
    assert [moment.step for moment in seen] == [4, 5, 6, 7]
    assert [moment.epoch for moment in seen] == [2, 3, 3, 4]
    assert found.losses == expected


def test_a_training_that_died_after_its_last_step_is_not_done_again(tmp_path):
    whole = network()
    expected = train_network(whole, Squares(), config(), 3, state=tmp_path / "state")
    seen, again = [], network()
    found = train_network(again, Squares(), config(), 3, state=tmp_path / "state", watch=seen.append)
    assert seen == []
    assert found.losses == expected.losses
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_a_damaged_state_is_not_used(tmp_path):
    state = tmp_path / "state"
    expected = train_network(network(), Squares(), config(), 3)
    state.write_bytes(b"PK\x03\x04 half a file")
    assert train_network(network(), Squares(), config(), 3, state=state).losses == expected.losses


def test_every_epoch_has_its_own_order_of_all_slices():
    order = Shuffled(12, seed=0)
    passes = []
    for epoch in (0, 1):
        order.set_epoch(epoch)
        passes.append([item for batch in Batches(order, 4) for item in batch])
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(12))
    assert passes[0] != passes[1]


def test_the_parts_of_all_devices_are_the_batch_of_one():
    order = Shuffled(11, seed=0)
    parts = zip(Batches(order, 4, 0, 2), Batches(order, 4, 1, 2), strict=True)
    assert [[*one, *other] for one, other in parts] == list(Batches(order, 4))


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(InputError, match="multiple of 3"):
        train_network(network(), Squares(), config(devices=3), 0)


@pytest.mark.parametrize("name", ["cats2d", pytest.param("transunet", marks=pytest.mark.slow)])
def test_two_processes_train_the_same_network_as_one(tmp_path, name):
    one, two = network(name), network(name)
    start = copy.deepcopy(one.state_dict())
    expected = train_network(one, Squares(), config(steps=4), 3)
    found = train_network(two, Squares(), config(steps=4, devices=2), 3, state=tmp_path / "state")
    # Adam scales up small gradients, so rounding errors grow with every step.
    assert found.losses[0] == pytest.approx(expected.losses[0], rel=1e-6)
    assert found.losses == pytest.approx(expected.losses, rel=1e-2)
    moved = sum((tensor - start[key]).float().norm() for key, tensor in one.state_dict().items())
    apart = sum((tensor - two.state_dict()[key]).float().norm() for key, tensor in one.state_dict().items())
    assert apart < 0.1 * moved


def test_nested_training_leaves_after_a_random_block_in_every_second_step_and_resumes_the_same(tmp_path):
    def run(watch=None, **options):
        torch.manual_seed(0)
        trained = create_model("unetr2d", num_classes=2, depth=6, size="micro", width=0.125, image_size=32, in_chans=1)
        seen = []

        def note(moment):
            seen.append(trained.vit.leave_after)
            if watch is not None:
                watch(moment)

        losses = train_network(trained, Squares(), config(nested=True, steps=60), 3, watch=note, **options).losses
        return trained, losses, seen

    trained, losses, seen = run()
    assert set(seen[0::2]) == {None}
    assert set(seen[1::2]) == {1, 2, 3, 4, 5, 6}
    assert trained.vit.leave_after is None
    with pytest.raises(KilledError):
        run(watch=KilledAt(9), state=tmp_path / "state")
    again, resumed, _ = run(state=tmp_path / "state")
    assert resumed == losses
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in trained.state_dict().items())


def test_leaving_after_a_block_is_the_network_truncated_with_its_whole_decoder():
    torch.manual_seed(0)
    full = create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, in_chans=1).eval()
    images, small = torch.randn(2, 1, 32, 32), full.truncated(2, "whole").eval()
    full.vit.leave_after = 2
    with torch.no_grad():
        assert torch.equal(full(images), small(images))
