"""Leaves out work that took more than half of a tiny study's time and that few tests are about."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure


class Unrendered(Figure):
    """A figure that is built and not rendered: its file is empty."""

    def savefig(self, path: Path, **_: object) -> None:
        Path(path).touch()


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Do not render figures of attention, and time networks once, not five times."""
    patch.setattr("vitrim.attention.figures.Figure", Unrendered)
    patch.setattr("vitrim.evaluation.cost.ROUNDS", 1)
