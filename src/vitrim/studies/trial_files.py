"""The names of the files of a trial, and its per-case tables by depth."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vitrim.files import read_table

TRIAL, TUNING, NESTED = "trial.json", "tuning.csv", "nested.csv"


def nested_tables(folder: Path) -> dict[int, pd.DataFrame] | None:
    """Read the per-case table of every depth from a trial's folder; None if its network is not nested."""
    path = folder / NESTED
    return {int(str(k)): table for k, table in read_table(path).groupby("depth")} if path.is_file() else None
