"""Writes the results of a study from its finished trials: tables, examples, and data for the attention explorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vitrim.files import write_table
from vitrim.studies.folder import note, noted, versions
from vitrim.studies.plan import Plan, RunKey, balanced
from vitrim.studies.recompute import NOISE, write_rules
from vitrim.studies.result_tables import Row, gather, results_table, trials_table
from vitrim.studies.snapshots import Slices, choose_slices, write_augmented, write_examples, write_explorer
from vitrim.studies.study_data import train_slices
from vitrim.studies.trial import Result


@dataclass(frozen=True)
class Done:
    """A finished trial, its run key, and why it was trained."""

    run_key: RunKey
    result: Result
    role: str
    """As in `vitrim.studies.result_tables.Row`."""

    @property
    def blocks(self) -> int:
        """Number of transformer blocks of the trained network."""
        return self.result.trial.blocks

    @property
    def is_full(self) -> bool:
        """Whether the network is not truncated, with a seed of the study."""
        return self.role == "full"


def write_results(plan: Plan, done: Sequence[Done], out: Path) -> None:
    """Write results.csv, trials.csv, cases.csv, history.csv, cost.csv, examples.npz, and explorer.npz of each network.

    For a depth sweep, also writes rules.csv; with augmentation, augmented.npz. Examples and explorer show slices and
    networks of the first seed and fold with a finished full network.
    """
    noise = [each for each in done if each.role == "noise"]
    rows = [row for network in plan.study.networks for row in _rows(plan, done, network)]
    done = [each for each in done if each.role != "noise"]
    write_table(out / "results.csv", results_table(rows, plan.study.margins))
    write_table(out / "trials.csv", trials_table(rows))
    counted = {result.trial.key for row in rows for result in row.results}
    for file, table in gather([each.result for each in done if each.result.trial.key in counted]).items():
        write_table(out / f"{file}.csv", table)
    if noise:
        write_table(out / NOISE, gather([each.result for each in noise])["cases"])
    write_rules(out, plan.study.margins)
    first = done[0].run_key
    here = [each for each in done if (each.run_key.seed, each.run_key.fold) == (first.seed, first.fold)]
    shown = choose_slices(done[0].result, plan.study_data.data)
    decided = [each for each in here if "decided" in each.role.split("+")]
    chosen: dict[str, int] = {each.run_key.network: each.blocks for each in decided}
    write_examples(out / "examples.npz", [each.result for each in here], chosen, plan.study_data.data)
    if plan.study.training.augment not in ("none", []):
        write_augmented(out / "augmented.npz", done[0].result.trial, plan.study_data.data)
    for run_key in dict.fromkeys(each.run_key for each in here):
        _write_explorer(
            plan.attention_folder(out, run_key), [each.result for each in here if each.run_key == run_key], shown
        )


def _rows(plan: Plan, done: Sequence[Done], network: str) -> list[Row]:
    """Return one row for each depth of a network, deepest first."""
    noise = [each for each in done if each.run_key.network == network and each.role == "noise"]
    own = [each for each in done if each.run_key.network == network and each.role != "noise"]
    full = {each.run_key: each for each in own if each.is_full}
    rows = []
    for blocks in sorted({each.blocks for each in own}, reverse=True):
        there = {each.run_key: each for each in own if each.blocks == blocks}
        same = [there[key] for key in balanced(list(there))]
        cache, split = plan.study_data.data.cache, same[0].result.trial.split
        rows.append(
            Row(
                [each.result for each in same],
                [full[each.run_key].result for each in same],
                same[0].role,
                _init(plan, same[0]),
                train_slices(cache, split, plan.study),
            )
        )
        if same[0].is_full:
            for each in noise:
                fold = each.result.trial.fold
                other = next((one.result for one in same if one.run_key.fold == fold), None)
                if other is not None:
                    rows.append(replace(rows[-1], results=[each.result], full=[other], role=each.role))
    return rows


def _init(plan: Plan, one: Done) -> str:
    """Return the kind of initial weights: scratch, pretrained, file, inherit or distil."""
    if not one.is_full and plan.study.truncated_from != "scratch":
        return plan.study.truncated_from
    wish = plan.study.pretrained
    return "file" if isinstance(wish, str) else "pretrained" if wish else "scratch"


def _write_explorer(folder: Path, group: Sequence[Result], shown: Slices) -> None:
    """Write explorer.npz: the attention of one network, full and truncated, on the shown slices."""
    networks = {result.trial.blocks: result.network() for result in group}
    write_explorer(
        folder / "explorer.npz",
        networks,
        shown.images,
        grid=networks[group[0].trial.blocks].token_grid,
        cases=shown.cases,
        slices=shown.numbers,
        reference=shown.reference,
        pictures=shown.pictures,
    )


def record_study(plan: Plan, results: Sequence[Result], out: Path, seconds: float) -> None:
    """Record seeds, splits, versions and cost in study.json; `seconds` of this run add to those of earlier runs."""
    training = plan.study.training
    trained = sum(float(result.cost["train_seconds"] or 0) for result in results)
    if training.device == "gpu":
        cost = {"gpu_seconds": round(trained * training.processes, 1)}
    else:
        cost = {"cpu_seconds": round(trained * training.processes * torch.get_num_threads(), 1)}
    note(
        out,
        seeds=plan.study.all_seeds,
        splits={str(fold): split.dump() for fold, split in plan.study_data.splits.items()},
        initialised_from=plan.origins,
        versions=versions(plan.study),
        wall_seconds=round(noted(out, "wall_seconds", 0.0) + seconds, 1),
        cost={"train_seconds": round(trained, 1), **cost},
        trials=[result.trial.key for result in results],
    )
