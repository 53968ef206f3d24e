"""The statistics of a finished study, once more from its stored per-case table; nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from vitrim.attention.decision import Decision
from vitrim.beside import stored_json
from vitrim.config import StudyConfig
from vitrim.errors import InputError
from vitrim.study.look import stored_influence
from vitrim.study.rules import SWEEP, judge, rules_table
from vitrim.study.tables import found_columns, write_table

KEYS = ["network", "blocks", "seed", "fold"]


def recompute(run: Path) -> list[Path]:
    """Write results.csv and, of a depth sweep, rules.csv of the study in `run` again, from cases.csv and decisions.

    What follows from the cases is new; the rest of results.csv (parameters, multiply-adds, roles) stays as it is.
    Returns what was written: nothing where the study has no per-case table. InputError where a table is damaged.
    """
    if not (run / "cases.csv").is_file() or not (run / "results.csv").is_file():
        return []
    cases, results = _read(run / "cases.csv"), _read(run / "results.csv")
    stored = stored_json(run / "study.json").get("study", {})
    margins = stored.get("margins") or list(StudyConfig.model_fields["margins"].get_default(call_default_factory=True))
    if not {*KEYS, "case", "class", "dice", "hd95", "hd95_unit"} <= set(cases.columns):
        return []
    comparisons = max(1, int((results["role"] != "full").sum()))
    rows: list[dict[Any, Any]] = []
    for _, row in results.iterrows():
        own = cases[(cases["network"] == row["network"]) & (cases["blocks"] == row["blocks"])]
        if own.empty:
            raise InputError(f"{run / 'cases.csv'} says nothing of {row['network']} with {row['blocks']} blocks")
        full = None if row["role"] == "full" else _full(cases, results, own)
        rows.append(row.to_dict() | found_columns(own, full, margins, comparisons))
    write_table(run / "results.csv", pd.DataFrame(rows)[results.columns.tolist()])
    rules = _rules(run, cases, margins)
    if rules is None:
        return [run / "results.csv"]
    write_table(run / "rules.csv", rules)
    return [run / "results.csv", run / "rules.csv"]


def _full(cases: pd.DataFrame, results: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Cases of the full network with the same seeds and folds."""
    network = own["network"].iloc[0]
    depth = results[(results["network"] == network) & (results["role"] == "full")]["blocks"].iloc[0]
    full = cases[(cases["network"] == network) & (cases["blocks"] == depth)]
    return full.merge(own[["seed", "fold"]].drop_duplicates(), on=["seed", "fold"])


def _rules(run: Path, cases: pd.DataFrame, margins: list[float]) -> pd.DataFrame | None:
    judged = []
    places = cases[["network", "seed", "fold"]].drop_duplicates()
    first = places.iloc[0]
    for network, seed, fold in places.itertuples(index=False, name=None):
        short = (seed, fold) == (first["seed"], first["fold"])
        folder = run / "networks" / (network if short else f"{network}-seed{seed}-fold{fold}")
        own = cases[(cases["network"] == network) & (cases["seed"] == seed) & (cases["fold"] == fold)]
        tables = {int(blocks): table for blocks, table in own.groupby("blocks")}
        if len(tables) < SWEEP or not (folder / "decision.json").is_file():
            continue
        decided, influence = Decision.load(folder / "decision.json").depth, stored_influence(folder)
        judged += [(network, seed, fold, margin, judge(tables, decided, influence, margin)) for margin in margins]
    return rules_table(judged) if judged else None


def _read(path: Path) -> pd.DataFrame:
    names = {"network": str, "case": str, "class": str, "role": str, "hd95_unit": str}
    try:
        return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error
