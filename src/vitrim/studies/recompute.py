"""Recomputes the statistics of a finished study from its stored per-case table, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import vitrim
from vitrim.attention.decision import Decision, stored_rule
from vitrim.compression.depth_decision import DECISION, FORMAT, DepthDecision, confirm, save_decision
from vitrim.compression.depth_rules import (
    SWEEP,
    answers_of,
    changed_by_training,
    judge_rules,
    rule_results_table,
    stored_evidence,
    untrained_answers,
)
from vitrim.config.names import NETWORK_TITLES, SHALLOWEST
from vitrim.config.schema import StudyConfig
from vitrim.errors import InputError
from vitrim.files import read_json, read_table, write_table
from vitrim.studies.folder import note
from vitrim.studies.result_columns import found_columns, sequenced
from vitrim.studies.trial_files import TRIAL, nested_tables

OLD = "corrected_verdict_"
"""Columns of version 0.1.0 that this version does not write."""
NOISE = "noise.csv"
"""Per-case table of the full networks with another seed."""
KEYS = ["network", "blocks", "seed", "fold"]


def recompute(run: Path) -> list[Path]:
    """Write results.csv and every decision.json of the study in `run` again, from cases.csv.

    For a depth sweep, also rules.csv.

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
        own = _cases_of(run, row, cases)
        if own.empty:
            raise InputError(f"{run / 'cases.csv'} has no rows for {row['network']} with {row['blocks']} blocks")
        full = None if row["role"] == "full" else _full(cases, results, own)
        rows.append(row.to_dict() | found_columns(own, full, margins))
    judged = sequenced(pd.DataFrame(rows).drop(columns=[name for name in results if str(name).startswith(OLD)]))
    if [name for name in judged if name not in results]:
        note(run, judged_again=vitrim.__version__)
    write_table(run / "results.csv", judged)
    return [run / "results.csv", *write_rules(run, margins), *_write_decisions(run, cases, results, margins)]


def _cases_of(run: Path, row: pd.Series, cases: pd.DataFrame) -> pd.DataFrame:
    """Return the per-case table of a row of results.csv. For the noise floor it has the seed of the full network."""
    if row["role"] == "noise":
        other = read_table(run / NOISE)
        own = other[other["network"] == row["network"]]
        first = cases[(cases["network"] == row["network"]) & cases["fold"].isin(own["fold"])]["seed"].iloc[0]
        return own.assign(seed=first)
    return cases[(cases["network"] == row["network"]) & (cases["blocks"] == row["blocks"])]


def _write_decisions(run: Path, cases: pd.DataFrame, results: pd.DataFrame, margins: Sequence[float]) -> list[Path]:
    """Judge the chosen depth of each network again, on the stored held-out cases, and write its decision.json.

    A study of version 0.1.0 has no such verdict: its chosen depth is that of the attention rule. Its decision.json then
    becomes attention_rule.json.
    """
    written = []
    for name in dict.fromkeys(results["network"]):
        if name not in SHALLOWEST:
            raise InputError(
                f"{run / 'results.csv'} names the network {name!r}, which is none of {', '.join(SHALLOWEST)}"
            )
        folder = run / "networks" / str(name)
        rule = stored_rule(folder)
        if rule is None:
            continue
        path = folder / DECISION
        older = not path.is_file() or read_json(path).get("format") != FORMAT
        decision = _older_decision(folder, str(name), rule, margins[0]) if older else DepthDecision.load(path)
        own = cases[cases["network"] == name]
        full = own[own["blocks"] == decision.full]
        trainings = full[["seed", "fold"]].drop_duplicates()
        held_out = {
            int(str(blocks)): table
            for blocks, table in own.groupby("blocks")
            if len(table[["seed", "fold"]].drop_duplicates()) == len(trainings)
        }
        if decision.full not in held_out:
            continue
        chosen = decision.depth if older else decision.confirmed.depth if decision.confirmed else decision.full
        if not decision.reason:
            decision = confirm(decision, held_out, chosen, margins, SHALLOWEST[str(name)])
        written.append(save_decision(decision, folder))
    return written


def _older_decision(folder: Path, network: str, rule: Decision, margin: float) -> DepthDecision:
    """Return the decision of a study of version 0.1.0, not yet judged: the attention rule chose."""
    evidence = stored_evidence(folder, margin)
    return DepthDecision(
        network=NETWORK_TITLES.get(network, network),
        full=len(rule.blocks),
        depth=rule.depth,
        verdict="not shown",
        margin=margin,
        proposed=rule.depth,
        rule="globality",
        proposed_on="training",
        rules={} if evidence is None else answers_of(evidence),
        untrained=untrained_answers(rule),
        changed_by_training=changed_by_training(rule),
    )


def write_rules(run: Path, margins: Sequence[float]) -> list[Path]:
    """Write rules.csv for the networks with a depth sweep: at least `SWEEP` trained depths.

    Reads cases.csv and the stored attention of each full network. Returns the written files: none if no network has
    a sweep.
    """
    cases, nested = read_table(run / "cases.csv"), _nested_tables(run)
    judged = []
    for network, seed, fold in cases[["network", "seed", "fold"]].drop_duplicates().itertuples(index=False, name=None):
        other = run / "networks" / f"{network}-seed{seed}-fold{fold}"
        # The folder of the first seed and fold has a name without numbers.
        folder = other if other.is_dir() else run / "networks" / network
        own = cases[(cases["network"] == network) & (cases["seed"] == seed) & (cases["fold"] == fold)]
        tables = {int(str(blocks)): table for blocks, table in own.groupby("blocks")}
        evidence = stored_evidence(folder, margins[0], nested.get((network, seed, fold)))
        if len(tables) < SWEEP or evidence is None:
            continue
        shallowest = SHALLOWEST[network]
        for margin in margins:
            judged.append(
                (network, seed, fold, margin, judge_rules(tables, replace(evidence, margin=margin), shallowest))
            )
    if not judged:
        (run / "rules.csv").unlink(missing_ok=True)
        return []
    write_table(run / "rules.csv", rule_results_table(judged))
    return [run / "rules.csv"]


def _nested_tables(run: Path) -> dict[tuple[str, int, int], dict[int, pd.DataFrame]]:
    """Return the per-case tables by depth of every nested network of the study, by (network, seed, fold)."""
    found = {}
    for folder in sorted((run / "trials").glob("*")):
        if tables := nested_tables(folder):
            trial = read_json(folder / TRIAL)
            found[trial["network"]["name"], trial["seed"], trial["fold"]] = tables
    return found


def _full(cases: pd.DataFrame, results: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the full network with the same seeds and folds as `own`."""
    network = own["network"].iloc[0]
    depth = results[(results["network"] == network) & (results["role"] == "full")]["blocks"].iloc[0]
    full = cases[(cases["network"] == network) & (cases["blocks"] == depth)]
    return full.merge(own[["seed", "fold"]].drop_duplicates(), on=["seed", "fold"])
