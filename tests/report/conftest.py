"""Run folders for the report's tests, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.synthetic_run import make_run
from vitrim.report.build import write_report

HOSTILE = ("<script>alert(1)</script>", 'a|b & $c_d$ "e"', "NA", "aorta")
"""Class names that a data set may well have, and that must stay text."""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of three networks, with its report."""
    folder = make_run(tmp_path_factory.mktemp("report") / "demo")
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with names that would break a careless page."""
    folder = make_run(tmp_path_factory.mktemp("report") / "hostile", networks=("transunet",), classes=HOSTILE)
    write_report(folder)
    return folder
