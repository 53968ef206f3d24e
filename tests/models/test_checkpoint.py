"""A folder without a network, or with a network that does not fit its description, is refused with a reason."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitrim.errors import InputError
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.factory import create_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(
        create_model("transunet", num_classes=2, depth=1, size="micro", width=0.125, image_size=64), tmp_path / "m"
    )
    return tmp_path / "m"


def test_saving_over_a_checkpoint_replaces_it(saved: Path) -> None:
    save_model(create_model("transunet", num_classes=5, depth=0, size="micro", width=0.125, image_size=64), saved)
    assert load_model(saved).config.num_classes == 5
    assert sorted(path.name for path in saved.parent.iterdir()) == ["m"]


def test_loading_draws_no_random_number(saved: Path) -> None:
    state = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no network in .*: model\.json is missing"):
        load_model(tmp_path)


def without_checksum(folder: Path) -> None:
    """Remove the checksum from model.json, as in older checkpoints."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    del description["sha256"]
    path.write_text(json.dumps(description))


def test_tensors_that_do_not_fit_are_named(saved: Path) -> None:
    without_checksum(saved)
    state = load_file(saved / "model.safetensors")
    state["surplus"] = torch.zeros(1)
    state["head.bias"] = torch.zeros(7)
    del state["head.weight"]
    save_file(state, saved / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_model(saved)
    message = str(caught.value)
    assert "missing: head.weight" in message
    assert "unexpected: surplus" in message
    assert "of another shape: head.bias (7,) instead of (2,)" in message


@pytest.mark.parametrize(("checksum", "complaint"), [(True, "damaged or was changed"), (False, "cannot read")])
def test_a_cut_off_file_is_refused(saved: Path, checksum: bool, complaint: str) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    if not checksum:
        without_checksum(saved)
    with pytest.raises(InputError, match=complaint):
        load_model(saved)


def test_one_changed_weight_is_noticed(saved: Path) -> None:
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged or was changed"):
        load_model(saved)


def test_a_checkpoint_without_a_checksum_still_loads(saved: Path) -> None:
    without_checksum(saved)
    assert load_model(saved).depth == 1


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("checksum", [True, False])
def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(saved: Path, tmp_path: Path, checksum: bool) -> None:
    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    if not checksum:
        without_checksum(saved)
    with pytest.raises(InputError):
        load_model(saved)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 99}, "format 99"),
        ({"network": {"name": "transunet"}}, "num_classes is missing"),
        ({"network": {"name": "vnet", "num_classes": 2}}, "name"),
    ],
)
def test_a_description_that_vitrim_cannot_follow_is_refused(
    saved: Path, change: dict[str, object], complaint: str
) -> None:
    path = saved / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=complaint):
        load_model(saved)


def test_json_that_describes_something_else_is_refused(saved: Path) -> None:
    (saved / "model.json").write_text("[]")
    with pytest.raises(InputError, match="does not describe a network"):
        load_model(saved)


@pytest.mark.parametrize("change", [{"stem": "release"}, {"decoder": "whole"}, {"taps": [1, 2, 3, 4]}])
def test_a_description_that_was_changed_is_refused(saved: Path, change: dict) -> None:
    path = saved / "model.json"
    description = json.loads(path.read_text())
    description["network"].update(change)
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"model.json was changed"):
        load_model(saved)


def test_an_unknown_key_of_a_description_is_named(saved: Path) -> None:
    path = saved / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dept": 3}))
    with pytest.raises(InputError, match="unknown key 'dept'"):
        load_model(saved)


def test_tensors_of_another_type_are_named_and_half_precision_becomes_float32(saved: Path) -> None:
    without_checksum(saved)
    state = load_file(saved / "model.safetensors")
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(halved, saved / "model.safetensors")
    assert {p.dtype for p in load_model(saved).parameters()} == {torch.float32}
    save_file({**state, "head.bias": state["head.bias"].long()}, saved / "model.safetensors")
    with pytest.raises(InputError, match=r"of another type: head.bias torch.int64 instead of torch.float32"):
        load_model(saved)


def test_a_folder_with_other_files_is_not_replaced(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    network = load_model(saved)
    for path in (saved, saved / "notes.txt"):
        with pytest.raises(InputError, match=r"notes\.txt"):
            save_model(network, path)
    assert (saved / "notes.txt").read_text() == "mine"
