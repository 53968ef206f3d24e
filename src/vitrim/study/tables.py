"""The tables of a study, from the stored per-case tables of its trials alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitrim.files import replacing
from vitrim.models.checkpoint import load_model
from vitrim.models.describe import count_macs, count_parameters
from vitrim.study.statistics import average_dice, change
from vitrim.study.trial import Result


def results_table(
    groups: Sequence[Sequence[Result]],
    decided: Mapping[str, int],
    fixed: Mapping[str, Sequence[int]],
    margins: Sequence[float],
    train_slices: int,
) -> pd.DataFrame:
    """One row a trained network; each group is one network's full form first, then its truncated ones.

    Columns as in the paper's tables 1 to 3 (blocks, training slices, Dice per class, average, change by equation 4,
    parameters saved by equation 5), then multiply-adds, the paired bootstrap interval of the change, verdicts, HD95.
    Dice of a class is the mean over the cases that say something about it; `cases_<class>` is how many those are.
    """
    rows = []
    for group in groups:
        full = group[0]
        parameters_full: int | None = None
        for result in group:
            trial = result.trial
            network = load_model(result.folder)
            parameters = count_parameters(network)
            row: dict[str, Any] = {
                "network": trial.network.name,
                "blocks": trial.blocks,
                "role": _role(trial.blocks, full.trial.blocks, decided[trial.network.name], fixed[trial.network.name]),
                "seed": trial.seed,
                "train_slices": train_slices,
                "train_cases": len(trial.split.train),
                "validation_cases": len(trial.split.validation),
                "parameters": parameters,
                "parameters_saved_percent": None
                if parameters_full is None
                else 100 * (parameters_full - parameters) / parameters_full,
                "multiply_adds": count_macs(network, trial.network.image_size),
            }
            parameters_full = parameters_full or parameters
            dice, hd95 = _by_class(result.cases, "dice"), _by_class(result.cases, "hd95")
            row |= {f"dice_{name}": dice[name].mean() for name in dice}
            row |= {f"cases_{name}": int(dice[name].notna().sum()) for name in dice}
            row["average_dice"] = float(average_dice(dice.to_numpy()))
            difference = None if result is full else change(full.cases, result.cases)
            row["dice_change_percent"] = difference and difference.percent
            row["change_low_percent"] = difference and difference.low
            row["change_high_percent"] = difference and difference.high
            for margin in margins:
                row[f"verdict_{100 * margin:g}"] = difference and difference.verdict(margin)
            row |= {f"hd95_{name}": hd95[name].mean() for name in hd95}
            row["hd95_unit"] = result.cases["hd95_unit"].iloc[0]
            rows.append(row)
    return pd.DataFrame(rows)


def gather(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Put the trials' own tables together: cases, history, and cost, each with network, blocks and seed in front."""
    tables: dict[str, list[pd.DataFrame]] = {"cases": [], "history": [], "cost": []}
    for result in results:
        for name, table in (
            ("cases", result.cases),
            ("history", result.history),
            ("cost", pd.DataFrame([result.cost])),
        ):
            table = table.copy()
            table.insert(0, "seed", result.trial.seed)
            table.insert(0, "blocks", result.trial.blocks)
            table.insert(0, "network", result.trial.network.name)
            tables[name].append(table)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with six decimals, whole or not at all."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def _role(blocks: int, full: int, decided: int, fixed: Sequence[int]) -> str:
    if blocks == full:
        return "full"
    return "+".join(name for name, holds in (("decided", blocks == decided), ("fixed", blocks in fixed)) if holds)


def _by_class(cases: pd.DataFrame, value: str) -> pd.DataFrame:
    """Cases × classes, the classes in the order of their labels."""
    return cases.pivot(index="case", columns="class", values=value)[list(dict.fromkeys(cases["class"]))].astype(
        np.float64
    )
