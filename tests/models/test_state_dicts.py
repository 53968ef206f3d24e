"""State dicts are read in the common forms in which programs save them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitrim.errors import InputError
from vitrim.models.state_dicts import read_state

STATE = {"a.weight": torch.arange(3.0), "a.count": torch.tensor(4)}


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}},
        {
            "state_dict": {
                name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in STATE.items()
            }
        },
    ],
)
def test_however_a_state_dict_was_saved_its_tensors_come_by_name_in_float32(content: object, tmp_path: Path) -> None:
    found = read_state(save(content, tmp_path / "file.pth"))
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) and found[name].dtype == STATE[name].dtype for name in STATE)


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "file.safetensors")
    found = read_state(tmp_path / "file.safetensors")
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("content", [{"weights": 3}, {}, [1, 2], {"model": {}}])
def test_a_file_without_tensors_by_name_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no state dict"):
        read_state(save(content, tmp_path / "file.pth"))


@pytest.mark.parametrize("name", ["file.pth", "file.safetensors", "absent.pth", "absent.safetensors"])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    if name.startswith("file"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot read"):
        read_state(tmp_path / name)


def test_code_inside_a_file_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_state(save({"model": Path("anything but a tensor")}, tmp_path / "file.pth"))
