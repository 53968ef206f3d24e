"""What a study comes to, from its finished trials: tables, examples, and what the report's explorer shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrim.study.examples import Slices, choose_slices, write_examples
from vitrim.study.explorer import write_explorer
from vitrim.study.plan import Place, Plan
from vitrim.study.prepare import train_slices
from vitrim.study.recompute import write_rules
from vitrim.study.tables import Row, gather, results_table, trials_table, write_table
from vitrim.study.trial import Result


@dataclass(frozen=True)
class Done:
    """A finished trial, where it belongs, and the depth that was decided there."""

    place: Place
    result: Result
    decided: int

    @property
    def blocks(self) -> int:
        """Transformer blocks of the trained network."""
        return self.result.trial.blocks

    @property
    def is_full(self) -> bool:
        """Whether nothing was cut."""
        return self.blocks == self.result.trial.network.depth


def write_results(plan: Plan, done: Sequence[Done], out: Path) -> None:
    """Write results.csv, trials.csv, cases.csv, history.csv, cost.csv, examples.npz, explorer.npz of each network.

    Of a depth sweep also rules.csv. Slices are shown of the first seed and fold whose full network is there.
    """
    rows = [row for network in plan.study.networks for row in _rows(plan, done, network)]
    write_table(out / "results.csv", results_table(rows, plan.study.margins))
    write_table(out / "trials.csv", trials_table(rows))
    for file, table in gather([each.result for each in done]).items():
        write_table(out / f"{file}.csv", table)
    write_rules(out, plan.study.margins)
    first = done[0].place
    here = [each for each in done if (each.place.seed, each.place.fold) == (first.seed, first.fold)]
    shown = choose_slices(done[0].result, plan.prepared.data)
    write_examples(out / "examples.npz", shown, [each.result for each in here])
    for place in dict.fromkeys(each.place for each in here):
        _write_explorer(plan.look_folder(out, place), [each.result for each in here if each.place == place], shown)


def _rows(plan: Plan, done: Sequence[Done], network: str) -> list[Row]:
    """A row for each depth of one network, deepest first."""
    own = [each for each in done if each.place.network == network]
    full = {each.place: each for each in own if each.is_full}
    rows = []
    for blocks in sorted({each.blocks for each in own}, reverse=True):
        same = [each for each in own if each.blocks == blocks]
        cache, split = plan.prepared.data.cache, same[0].result.trial.split
        rows.append(
            Row(
                [each.result for each in same],
                [full[each.place].result for each in same],
                _role(plan, same),
                _init(plan, same[0]),
                train_slices(cache, split, plan.study),
            )
        )
    return rows


def _role(plan: Plan, same: Sequence[Done]) -> str:
    """Why networks of this depth were trained: decided counts where it was for any seed and fold."""
    if same[0].is_full:
        return "full"
    decided = any(each.blocks == each.decided for each in same)
    fixed = same[0].blocks in plan.fixed(same[0].place.network)
    return "+".join(name for name, holds in (("decided", decided), ("fixed", fixed)) if holds)


def _init(plan: Plan, one: Done) -> str:
    """What the weights were before training."""
    if not one.is_full and plan.study.truncated_from != "scratch":
        return plan.study.truncated_from
    wish = plan.study.pretrained
    return "file" if isinstance(wish, str) else "pretrained" if wish else "scratch"


def _write_explorer(folder: Path, group: Sequence[Result], shown: Slices) -> None:
    """Keep the whole attention of the shown slices, in one network's full and truncated forms, for the report."""
    networks = {result.trial.blocks: result.network() for result in group}
    write_explorer(
        folder / "explorer.npz",
        networks,
        shown.images,
        grid=networks[group[0].trial.blocks].token_grid,
        cases=shown.cases,
        slices=shown.numbers,
        reference=shown.reference,
    )
