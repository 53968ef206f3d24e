"""The loss on tuning cases is measured without a trace in the training, and finds the best weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch.utils.data import Subset

from tests.training.test_loop import KilledAt, KilledError, Squares, config, network
from vitrim.errors import ConfigurationError
from vitrim.training.loop import history_table, train_network
from vitrim.training.tuning_loss import TuningLoss, is_best

DATA, ASIDE = Subset(Squares(), range(6)), Subset(Squares(), range(6, 10))


class Inverted(Squares):
    """The same images with object and background exchanged: the better a network learns, the larger this loss."""

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        sample = super().__getitem__(item)
        return {**sample, "label": 1 - sample["label"]}


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize(("steps", "times"), [(1, 1), (4, 4), (24, 5), (220, 5), (600, 12), (12_850, 20)])
def test_it_is_measured_a_few_times_and_at_the_end(steps: int, times: int) -> None:
    aside = TuningLoss(Fabric(accelerator="cpu", devices=1), ASIDE, config(), steps)
    due = [step for step in range(1, steps + 1) if aside.due(step)]
    assert len(due) == times
    assert due[-1] == steps


def test_it_changes_nothing_in_the_training() -> None:
    plain, watched = network(), network()
    without = train_network(plain, DATA, config(), 3)
    found = train_network(watched, DATA, config(), 3, tuning=ASIDE)
    assert found.losses == without.losses
    assert same_weights(plain, watched)
    assert without.tuning_losses == {}
    assert "tuning_loss" not in history_table(without).columns
    table = history_table(found)
    assert dict(zip(*table.dropna()[["step", "tuning_loss"]].to_numpy().T, strict=True)) == found.tuning_losses


OVERFITTED = config(steps=12, learning_rate=3e-3, checkpoint="best")


def test_the_best_checkpoint_is_the_one_with_the_lowest_loss() -> None:
    best, last = network("unetr2d"), network("unetr2d")
    found = train_network(best, DATA, OVERFITTED, 3, tuning=Inverted())
    train_network(last, DATA, OVERFITTED.model_copy(update={"checkpoint": "last"}), 3, tuning=Inverted())
    lowest = min(found.tuning_losses.values())
    assert lowest < found.tuning_losses[12]
    aside = TuningLoss(Fabric(accelerator="cpu", devices=1), Inverted(), OVERFITTED, 12)
    assert aside.measure(best) == pytest.approx(lowest, rel=1e-5)
    assert aside.measure(last) == pytest.approx(found.tuning_losses[12], rel=1e-5)


def test_a_training_that_dies_ends_with_the_same_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitrim.training.resume.SHARE", float("inf"))  # a state after every step
    whole = network("unetr2d")
    expected = train_network(whole, DATA, OVERFITTED, 3, tuning=Inverted())
    state, deaths = tmp_path / "state", 0
    while True:
        again = network("unetr2d")
        try:
            found = train_network(again, DATA, OVERFITTED, 3, tuning=Inverted(), state=state, watch=KilledAt(5))
        except KilledError:
            deaths += 1
        else:
            break
    assert deaths == 2
    assert (found.losses, found.tuning_losses) == (expected.losses, expected.tuning_losses)
    assert same_weights(whole, again)


def test_the_best_checkpoint_needs_tuning_cases() -> None:
    with pytest.raises(ConfigurationError, match="best needs tuning cases"):
        train_network(network(), DATA, config(checkpoint="best"), 3)


@pytest.mark.parametrize(
    ("losses", "best"),
    [([1.0], True), ([1.0, 0.5], True), ([0.5, 0.5], False), ([float("nan")], False), ([float("nan"), 2.0], True)],
)
def test_the_first_lowest_finite_loss_is_the_best(losses: list[float], best: bool) -> None:
    assert is_best(dict(enumerate(losses, 1))) == best
