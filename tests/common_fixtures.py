"""Fixtures of several rooms: a tiny data set in the decathlon layout, a checkpoint, and a finished study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from matplotlib.figure import Figure
from rich.console import Console

import vitrim as package
from tests.shorter import shorten
from tests.support import tiny_study, write_checkpoint, write_tiny_data
from vitrim.config.reading import load_study
from vitrim.progress import Reporter


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


@pytest.fixture(scope="session", autouse=True)
def short_work() -> Iterator[None]:
    """As `shorten`, unless a test asks for rendered figures."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture
def rendered_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of attention are rendered, as for a user."""
    monkeypatch.setattr("vitrim.attention.figures.Figure", Figure)


@pytest.fixture(scope="session")
def finished_study(tiny_data_once: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The tiny study, finished, with its report; made once for all workers. Read only: copy it before you change it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    folder = shared / "finished-study"
    with FileLock(shared / "finished-study.lock"), pytest.MonkeyPatch.context() as patch:
        if not (folder / "report.html").is_file():
            study = load_study(tiny_study(shared / "finished-study.yaml"))
            patch.setattr("vitrim.attention.figures.Figure", Figure)
            package.study(study, data=tiny_data_once, out=folder, reporter=Reporter(Console(quiet=True)))
    return folder
