"""Recomputes the statistics of a finished study from its stored per-case table, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import vitrim
from vitrim.attention.decision import Decision
from vitrim.compression.depth_rules import SWEEP, judge_rules, rule_results_table
from vitrim.config.schema import StudyConfig
from vitrim.errors import InputError
from vitrim.files import read_json, read_table, write_table
from vitrim.studies.attention_step import stored_influence
from vitrim.studies.folder import note
from vitrim.studies.result_tables import found_columns, sequenced

OLD = "corrected_verdict_"
"""Columns of version 0.1.0 that this version does not write."""
KEYS = ["network", "blocks", "seed", "fold"]


def recompute(run: Path) -> list[Path]:
    """Write results.csv of the study in `run` again, from cases.csv; for a depth sweep, also rules.csv.

    Recomputes the columns that depend on the cases. The others (parameters, multiply-adds, roles) stay. Returns the
    written files: none if results.csv or a complete cases.csv is missing. Raises InputError if a table is damaged.
    """
    if not (run / "cases.csv").is_file() or not (run / "results.csv").is_file():
        return []
    cases, results = read_table(run / "cases.csv"), read_table(run / "results.csv")
    stored = read_json(run / "study.json").get("study", {})
    margins = stored.get("margins") or list(StudyConfig.model_fields["margins"].get_default(call_default_factory=True))
    if not {*KEYS, "case", "class", "dice", "hd95", "hd95_unit", "reference_voxels"} <= set(cases.columns):
        return []
    rows: list[dict[Any, Any]] = []
    for _, row in results.iterrows():
        own = cases[(cases["network"] == row["network"]) & (cases["blocks"] == row["blocks"])]
        if own.empty:
            raise InputError(f"{run / 'cases.csv'} has no rows for {row['network']} with {row['blocks']} blocks")
        full = None if row["role"] == "full" else _full(cases, results, own)
        rows.append(row.to_dict() | found_columns(own, full, margins))
    judged = sequenced(pd.DataFrame(rows).drop(columns=[name for name in results if str(name).startswith(OLD)]))
    if [name for name in judged if name not in results]:
        note(run, judged_again=vitrim.__version__)
    write_table(run / "results.csv", judged)
    return [run / "results.csv", *write_rules(run, margins)]


def write_rules(run: Path, margins: Sequence[float]) -> list[Path]:
    """Write rules.csv for the networks with a depth sweep: at least `SWEEP` trained depths.

    Reads cases.csv and the stored attention of each full network. Returns the written files: none if no network has
    a sweep.
    """
    cases = read_table(run / "cases.csv")
    judged = []
    for network, seed, fold in cases[["network", "seed", "fold"]].drop_duplicates().itertuples(index=False, name=None):
        other = run / "networks" / f"{network}-seed{seed}-fold{fold}"
        # The folder of the first seed and fold has a name without numbers.
        folder = other if other.is_dir() else run / "networks" / network
        own = cases[(cases["network"] == network) & (cases["seed"] == seed) & (cases["fold"] == fold)]
        tables = {int(str(blocks)): table for blocks, table in own.groupby("blocks")}
        if len(tables) < SWEEP or not (folder / "decision.json").is_file():
            continue
        decided, influence = Decision.load(folder / "decision.json").depth, stored_influence(folder)
        judged += [(network, seed, fold, margin, judge_rules(tables, decided, influence, margin)) for margin in margins]
    if not judged:
        return []
    write_table(run / "rules.csv", rule_results_table(judged))
    return [run / "rules.csv"]


def _full(cases: pd.DataFrame, results: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the full network with the same seeds and folds as `own`."""
    network = own["network"].iloc[0]
    depth = results[(results["network"] == network) & (results["role"] == "full")]["blocks"].iloc[0]
    full = cases[(cases["network"] == network) & (cases["blocks"] == depth)]
    return full.merge(own[["seed", "fold"]].drop_duplicates(), on=["seed", "fold"])
