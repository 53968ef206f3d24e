"""Makes the tables of a study from the stored results of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vitrim.metrics.statistics import change_percent, network_dice
from vitrim.models.checkpoint import read_config
from vitrim.models.describe import counts_of
from vitrim.studies.result_columns import found_columns, sequenced
from vitrim.studies.trial import Result, Trial


@dataclass(frozen=True)
class Row:
    """One row of results.csv: the trials of one network at one depth, over all seeds and folds."""

    results: Sequence[Result]
    full: Sequence[Result]
    """For each of `results`, the full network with the same seed and fold."""
    role: str
    """full, noise (the full network with another seed), or those of decided, tried and fixed that hold, joined by +."""
    init: str
    """Initial weights: scratch, pretrained, file, inherit or distil."""
    train_slices: int


def results_table(rows: Sequence[Row], margins: Sequence[float]) -> pd.DataFrame:
    """Return one row per network and depth; the full form of each network comes first.

    Columns are those of the paper's tables 1 to 3 (blocks, training slices, Dice per class, average, change by
    equation 4, parameters saved by equation 5), then multiply-adds, the paired interval of the change, effect size,
    verdicts (from deep to shallow, as a fixed sequence), the cases that a verdict needs for 80 % power, and HD95. Dice
    of a class is the mean over the cases whose reference has it; `cases_<class>` is their number, and
    `false_positive_cases_<class>` the number of other cases in which it was predicted. A case with several seeds counts
    with its mean over seeds. Held-out cases of all folds count equally.
    """
    table = []
    parameters_full: dict[str, int] = {}
    for each in rows:
        result, is_full = each.results[0], each.role == "full"
        trial = result.trial
        parameters, multiply_adds = counts_of(read_config(result.folder))
        if is_full:
            parameters_full[trial.network.name] = parameters
        before = parameters_full.get(trial.network.name)
        cases, full = concatenated(each.results), concatenated(each.full)
        if each.role == "noise":  # compared with another seed
            cases["seed"] = full["seed"].iloc[0]
        seeds = dict.fromkeys(result.trial.seed for result in each.results)
        row: dict[str, Any] = {
            "network": trial.network.name,
            "blocks": trial.blocks,
            "role": each.role,
            "init": each.init,
            "seed": rows[0].results[0].trial.seed if each.role != "noise" else trial.seed,
            "seeds": len(seeds),
            "folds": len({result.trial.fold for result in each.results}),
            "train_slices": each.train_slices,
            "train_cases": len(trial.split.train),
            "validation_cases": cases["case"].nunique(),
            "parameters": parameters,
            "parameters_saved_percent": None if is_full or before is None else 100 * (before - parameters) / before,
            "multiply_adds": multiply_adds,
        }
        row |= found_columns(cases, None if is_full else full, margins)
        table.append(row)
    return sequenced(pd.DataFrame(table))


def trials_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one row per trial, with its seed, fold and result."""
    table = []
    for each in rows:
        for result, full in zip(each.results, each.full, strict=True):
            trial = result.trial
            table.append(
                {
                    **_name(trial),
                    "role": each.role,
                    "init": each.init,
                    "train_cases": len(trial.split.train),
                    "validation_cases": len(trial.split.validation),
                    "average_dice": network_dice(result.cases),
                    "dice_change_percent": None if result is full else change_percent(full.cases, result.cases),
                    "trial": trial.key,
                }
            )
    return pd.DataFrame(table)


def gather(results: Sequence[Result]) -> dict[str, pd.DataFrame]:
    """Concatenate the tables cases, history and cost of all trials, with first columns network, blocks, seed, fold."""
    return {
        "cases": concatenated(results),
        "history": pd.concat([_named(result, result.history) for result in results], ignore_index=True),
        "cost": pd.concat([_named(result, pd.DataFrame([result.cost])) for result in results], ignore_index=True),
    }


def concatenated(results: Sequence[Result], tuning: bool = False) -> pd.DataFrame:
    """Concatenate the per-case tables of several trials, with first columns network, blocks, seed, fold.

    They hold the held-out cases, or the tuning cases with `tuning`.
    """
    tables = [(result, result.tuning if tuning else result.cases) for result in results]
    return pd.concat([_named(result, table) for result, table in tables if table is not None], ignore_index=True)


def _named(result: Result, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame([_name(result.trial)] * len(table)), table.reset_index(drop=True)], axis=1)


def _name(trial: Trial) -> dict[str, Any]:
    return {"network": trial.network.name, "blocks": trial.blocks, "seed": trial.seed, "fold": trial.fold}
