"""`vitrim evaluate`: how good a network is on given cases, and whether it is as good as another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitrim.beside import Beside, cases_for, prepared_slices, read_beside
from vitrim.config import DataConfig, TrainConfig
from vitrim.data.cases import CaseSet
from vitrim.errors import InputError
from vitrim.evaluate import evaluate
from vitrim.files import replacing, write_json
from vitrim.metrics import SURFACE_TOLERANCE
from vitrim.models.checkpoint import load_model
from vitrim.progress import Reporter
from vitrim.study.statistics import Change, average_dice, change, interval
from vitrim.study.tables import write_table
from vitrim.train import resolve

MEASURES = ("dice", "hd95", "surface_dice")
AVERAGE = "average"

Which = Literal["auto", "validation", "train", "tuning", "all"]


@dataclass(frozen=True)
class Assessment:
    """What `assess` found."""

    cases: pd.DataFrame
    """case, role, class, dice, hd95, surface_dice, reference_voxels, predicted_voxels, hd95_unit"""
    summary: pd.DataFrame
    """A row a class and one for their average: class, cases, and of each measure mean, low and high (95 %)"""
    change: Change | None
    """From the other network to this one."""
    sentence: str | None
    """The change in words."""


def assess(
    checkpoint: Path,
    data: Path,
    out: Path,
    reporter: Reporter,
    *,
    against: Path | None = None,
    which: Which = "auto",
    layout: DataConfig | None = None,
    margins: tuple[float, ...] = (0.05, 0.01),
) -> Assessment:
    """Evaluate a network on labelled cases in `data`, and write cases.csv, summary.csv and more into `out`.

    `which` of the cases: those that the training held out (`auto`, where it is known which they are), those that it
    used, or all (`auto` else). With `against`, another network is evaluated on the same cases; comparison.csv and
    comparison.json say by how much this one differs from it, with a paired interval over cases and the verdict for each
    of the `margins` (design, section 5).

    InputError for anything that is wrong with these; `out` appears whole or not at all.
    """
    if out.exists():
        raise InputError(f"{out} exists already; choose another folder with --out")
    beside = read_beside(checkpoint)
    mine, ids = _evaluated(checkpoint, beside, data, out, reporter, layout, which, None)
    other = None
    if against is not None:
        other, _ = _evaluated(against, read_beside(against), data, out, reporter, layout, which, ids)
    found = Assessment(mine, summarise(mine), None, None)
    comparison = None
    if other is not None:
        if set(other["class"]) != set(mine["class"]):
            raise InputError(
                f"{checkpoint} and {against} were not trained for the same classes: they cannot be compared"
            )
        difference = change(other, mine)
        found = Assessment(mine, found.summary, difference, _said(difference, other, mine, margins))
        comparison = other.merge(mine, on=["case", "role", "class"], suffixes=("_other", ""), sort=False)
    with replacing(out) as unfinished:
        unfinished.mkdir()
        write_table(unfinished / "cases.csv", mine)
        write_table(unfinished / "summary.csv", found.summary)
        if comparison is not None and found.change is not None:
            columns = ["case", "role", "class", *(f"{m}{end}" for m in MEASURES for end in ("_other", ""))]
            write_table(unfinished / "comparison.csv", comparison[columns])
            write_json(unfinished / "comparison.json", _as_json(found.change, checkpoint, against, margins))
    return found


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % bootstrap interval over cases of each measure, for each class and for their average.

    Cases that say nothing about a class are left out of its mean; `cases` is how many are left in.
    """
    rows = []
    names = list(dict.fromkeys(cases["class"]))
    tables = {m: cases.pivot(index="case", columns="class", values=m)[names].to_numpy(np.float64) for m in MEASURES}
    for place, name in [*enumerate(names), (None, AVERAGE)]:
        row: dict[str, Any] = {"class": name}
        for measure, table in tables.items():
            part = table if place is None else table[:, [place]]
            known = ~np.isnan(part).all(axis=1)
            row.setdefault("cases", int(known.sum()))
            means = pd.DataFrame(part).mean()  # over the cases that say something
            row[measure] = float(means.mean())
            row[f"{measure}_low"], row[f"{measure}_high"] = interval(part[known])
        rows.append(row)
    return pd.DataFrame(rows)


def table_lines(found: Assessment) -> list[str]:
    """The summary as lines to print."""
    unit = found.cases["hd95_unit"].iloc[0]
    width = max(len(str(name)) for name in found.summary["class"])
    titles = {"dice": "Dice", "hd95": f"HD95 ({unit})", "surface_dice": f"surface Dice ({SURFACE_TOLERANCE:g} {unit})"}
    lines = [f"{'':<{width}}  cases  " + "  ".join(f"{title:<24}" for title in titles.values())]
    for _, row in found.summary.iterrows():
        cells = [f"{_interval_text(row, measure):<24}" for measure in titles]
        lines.append(f"{row['class']:<{width}}  {row['cases']:>5}  " + "  ".join(cells))
    return [line.rstrip() for line in lines]


def _interval_text(row: pd.Series, measure: str) -> str:
    digits = 1 if measure == "hd95" else 3
    if pd.isna(row[measure]):
        return "no case has it"
    text = f"{row[measure]:.{digits}f}"
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    return text if pd.isna(low) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _evaluated(
    checkpoint: Path,
    beside: Beside,
    folder: Path,
    out: Path,
    reporter: Reporter,
    layout: DataConfig | None,
    which: Which,
    ids: tuple[str, ...] | None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    network = load_model(checkpoint)
    config, cases = cases_for(checkpoint, network, beside, folder, layout)
    ids = ids or _chosen(cases, beside, which, checkpoint)
    roles = _roles(beside)
    used = [case for case in ids if roles.get(case) == "train"]
    if used:
        reporter.say(f"note: {checkpoint} was trained on {len(used)} of these {len(ids)} cases; they flatter it")
    with (
        prepared_slices(config, cases, ids, out, reporter) as data,
        reporter.stage(f"evaluate {checkpoint}", len(ids)) as stage,
    ):
        found = evaluate(network, data, ids, resolve(TrainConfig(steps=1)), stage)
    found.insert(1, "role", [roles.get(case, "new") for case in found["case"]])
    return found, ids


def _chosen(cases: CaseSet, beside: Beside, which: Which, checkpoint: Path) -> tuple[str, ...]:
    roles = _roles(beside)
    if which in ("validation", "train", "tuning") and not roles:
        raise InputError(f"it is not known which cases {checkpoint} was trained on: evaluate all of them, --cases all")
    labelled = tuple(case.id for case in cases.labelled)
    if which == "auto":
        held_out = tuple(case for case in labelled if roles.get(case) == "validation")
        return held_out or _some(labelled, f"no case in {cases.folder} has a label to compare with")
    wanted = labelled if which == "all" else tuple(case for case in labelled if roles.get(case) == which)
    return _some(wanted, f"{cases.folder} holds no labelled case of the kind {which!r} for {checkpoint}")


def _some(ids: tuple[str, ...], otherwise: str) -> tuple[str, ...]:
    if not ids:
        raise InputError(otherwise)
    return ids


def _roles(beside: Beside) -> dict[str, str]:
    if beside.split is None:
        return {}
    return {
        **dict.fromkeys(beside.split.train, "train"),
        **dict.fromkeys(beside.split.validation, "validation"),
        **dict.fromkeys(beside.split.tuning, "tuning"),
    }


def _said(difference: Change, other: pd.DataFrame, mine: pd.DataFrame, margins: tuple[float, ...]) -> str:
    before, after = (
        float(average_dice(table.pivot(index="case", columns="class", values="dice").to_numpy()))
        for table in (other, mine)
    )
    text = f"average Dice {before:.3f} -> {after:.3f}: {difference.percent:+.2f} %"
    if difference.low is None or difference.high is None:
        return f"{text}; too few cases for an interval and a verdict"
    verdicts = ", ".join(f"{difference.verdict(m)} at a margin of {100 * m:g} %" for m in margins)
    return f"{text} (95 % interval {difference.low:+.2f} to {difference.high:+.2f}); {verdicts}"


def _as_json(difference: Change, checkpoint: Path, against: Path | None, margins: tuple[float, ...]) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint),
        "against": str(against),
        "dice_change_percent": difference.percent,
        "low_percent": difference.low,
        "high_percent": difference.high,
        "effect_size": difference.effect,
        "verdicts": {f"{100 * margin:g} %": difference.verdict(margin) for margin in margins},
    }
