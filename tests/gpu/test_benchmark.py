"""The benchmark for a GPU runs on a CPU too, writes as it goes, and resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_benchmark_measures_everything_once(tmp_path):
    command = [sys.executable, SCRIPT, tmp_path / "gpu.json", "--tiny"]
    first = subprocess.run([*command, "--only", "card", "training"], check=True, capture_output=True, text=True).stdout
    assert "FAILED" not in first
    some = json.loads((tmp_path / "gpu.json").read_text())
    second = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "FAILED" not in second
    every = json.loads((tmp_path / "gpu.json").read_text())
    assert {name.split(" ")[0] for name in every} == {"card", "training", "prediction", "attention", "forms"}
    assert all(every[name] == some[name] for name in some)
    assert not any(f"{name} (" in second for name in some)
    rates = [value for name, found in every.items() if name != "card" for value in found.values()]
    assert all(value > 0 for value in rates if value == value)  # not NaN: how busy a card is, which is not there
