"""What tests of several rooms share: a tiny data set in the decathlon layout, and a tiny study on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support import write_checkpoint, write_tiny_data

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the real data sets are not on this machine")
    return folder


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """Eight small cases with two classes."""
    return write_tiny_data(tmp_path / "data")


@pytest.fixture(scope="session")
def tiny_data_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made once; read only."""
    return write_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of one channel, whose labels depend on the image; read only."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "network")
