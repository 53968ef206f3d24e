"""The columns of results.csv that follow from per-case tables, and its verdicts as a sequence. No network is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vitrim.metrics.statistics import (
    average_dice,
    change,
    false_positives,
    in_sequence,
    network_dice,
    where_reference,
)


def sequenced(results: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the verdicts of each network as a fixed sequence of tests, from deep to shallow.

    The decided depth was chosen on other cases and is tested once, so it keeps its own verdict.
    """
    results = results.copy()
    alone = results["role"].isin(["full", "noise"]) | results["role"].str.contains("decided")
    for _, rows in results[~alone].groupby("network"):
        rows = rows.sort_values("blocks", ascending=False)
        for column in (name for name in results if str(name).startswith("verdict_")):
            results.loc[rows.index, column] = in_sequence(rows[column].tolist())
    return results


def found_columns(cases: pd.DataFrame, full: pd.DataFrame | None, margins: Sequence[float]) -> dict[str, Any]:
    """Return the columns of `results_table` that depend only on the per-case tables of a network and its full form.

    `full` is None if the network itself is the full form.
    """
    wrong, cases = false_positives(cases), where_reference(cases)
    dice, hd95 = _by_class(cases, "dice"), _by_class(cases, "hd95")
    row: dict[str, Any] = {f"dice_{name}": dice[name].mean() for name in dice}
    row |= {f"cases_{name}": int(dice[name].notna().sum()) for name in dice}
    row |= {f"false_positive_cases_{name}": wrong[str(name)] for name in dice}
    row["average_dice"] = float(average_dice(dice.to_numpy()))
    row["average_dice_sd"] = _spread_over_seeds(cases)
    difference = None if full is None else change(full, cases)
    row["dice_change_percent"] = difference and difference.percent
    row["change_low_percent"] = difference and difference.low
    row["change_high_percent"] = difference and difference.high
    row["effect_size"] = difference and difference.effect
    for margin in margins:
        row[f"verdict_{100 * margin:g}"] = difference and difference.verdict(margin)
        row[f"cases_needed_{100 * margin:g}"] = difference and difference.cases_needed(margin)
    row["provisional"] = difference and difference.provisional
    row |= {f"hd95_{name}": hd95[name].mean() for name in hd95}
    row["hd95_unit"] = cases["hd95_unit"].iloc[0]
    return row


def _spread_over_seeds(cases: pd.DataFrame) -> float | None:
    """Return the standard deviation of the average Dice over seeds; None if there is only one seed."""
    parts = [part for _, part in cases.groupby("seed")]
    if len(parts) < 2:
        return None
    return float(np.std([network_dice(part) for part in parts], ddof=1))


def _by_class(cases: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return a table (cases, classes) of means over seeds; classes are in the order of their labels."""
    table = cases.groupby(["case", "class"])[value].mean().unstack()
    return table[list(dict.fromkeys(cases["class"]))].astype(np.float64)
