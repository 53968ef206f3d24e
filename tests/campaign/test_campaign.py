"""Damaged and hostile input never ends in a traceback, a hang, a foreign file touched or something left over."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from tests.campaign.campaign import run
from tests.campaign.inputs import KINDS, Whole

SAMPLE, ALL = 6, 160


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    with contextlib.redirect_stdout(io.StringIO()):
        return Whole.make(tmp_path_factory.mktemp("whole"))


def faults(kind: str, numbers: range, whole: Whole, folder: Path) -> list[str]:
    wrong = []
    for number in numbers:
        place = folder / str(number)
        place.mkdir()
        wrong += [f"{kind} {number}: {fault}" for fault in run(kind, number, whole, place).faults]
    return wrong


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_damaged_input(kind: str, whole: Whole, tmp_path: Path) -> None:
    assert not faults(kind, range(SAMPLE), whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_damaged_input(kind: str, whole: Whole, tmp_path: Path) -> None:
    assert not faults(kind, range(SAMPLE, ALL), whole, tmp_path)
