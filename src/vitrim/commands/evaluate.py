"""`vitrim evaluate`: how accurate a network is on given cases, and whether it is as good as another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitrim.commands.provenance import (
    Provenance,
    cases_for,
    new_folder,
    prepared_data,
    read_provenance,
    with_split,
)
from vitrim.config.names import CaseGroup, Device
from vitrim.config.reading import Study, checked_name, data_section
from vitrim.config.schema import DataConfig
from vitrim.data.cases import CaseSet
from vitrim.errors import DataError, InputError
from vitrim.evaluation.accuracy import evaluate_cases
from vitrim.files import replacing, write_json, write_table
from vitrim.hardware import Hardware, sharing_cores
from vitrim.metrics.segmentation import SURFACE_TOLERANCE
from vitrim.metrics.statistics import (
    VERDICT_CASES,
    Change,
    average_interval,
    change,
    false_positives,
    network_dice,
    where_reference,
)
from vitrim.models.adapt import Adapted
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network
from vitrim.models.opening import needs_model, open_network
from vitrim.models.user_models import ModelSource
from vitrim.progress import Reporter

METRICS: dict[str, float | None] = {"dice": 1.0, "hd95": None, "surface_dice": 1.0}
"""Metrics, with the largest value that they can have; None if that depends on the image."""
AVERAGE = "average"


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` found."""

    cases: pd.DataFrame
    """case, role, class, dice, hd95, surface_dice, reference_voxels, predicted_voxels, hd95_unit"""
    summary: pd.DataFrame
    """One row per class and one for their average: class, cases, and of each metric mean, low and high (95 %)"""
    change: Change | None = None
    """From the other network to this one."""
    sentence: str | None = None
    """The change in words."""
    comparison: dict[str, Any] | None = None
    """What comparison.json holds: the change with its interval, and a verdict for each margin."""

    def as_json(self) -> dict[str, Any]:
        """Summary and comparison as JSON content; what is not known is None."""
        rows = json.loads(self.summary.to_json(orient="records", double_precision=15))
        return {"summary": rows, "comparison": self.comparison}

    def lines(self) -> list[str]:
        """The summary as lines to print."""
        unit = self.cases["hd95_unit"].iloc[0]
        width = max(len(str(name)) for name in self.summary["class"])
        titles = {
            "dice": "Dice",
            "hd95": f"HD95 ({unit})",
            "surface_dice": f"surface Dice ({SURFACE_TOLERANCE:g} {unit})",
        }
        lines = [f"{'':<{width}}  cases  " + "  ".join(f"{title:<24}" for title in titles.values())]
        for _, row in self.summary.iterrows():
            cells = [f"{_interval_text(row, metric):<24}" for metric in titles]
            lines.append(f"{row['class']:<{width}}  {row['cases']:>5}  " + "  ".join(cells))
        return [line.rstrip() for line in lines] + ([self.sentence] if self.sentence else [])


@sharing_cores()
def evaluate(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    model: ModelSource | None = None,
    against: str | Path | None = None,
    cases: CaseGroup = "auto",
    device: Device = "auto",
    study: Study | None = None,
    margins: tuple[float, ...] = (0.05, 0.01),
    reporter: Reporter | None = None,
) -> EvaluationResult:
    """Evaluate a network on the labelled cases in `data`, and write the tables into the new folder `out`.

    The same as the command `vitrim evaluate`. cases.csv has one row per case and class, summary.csv one per class. With
    `against`, another network is evaluated on the same cases; comparison.csv and comparison.json hold the change from
    that network to this one, with a paired interval over cases and a verdict for each margin.

    Args:
        model: what builds the model of another library whose weights `checkpoint` (or `against`) holds, as in
            `vitrim.compress`.
        cases: the cases that the training held out (`validation`), those that it used (`train`), those on which a depth
            was chosen (`tuning`), or `all`. `auto`: validation, or all where that is not known.
        device: where networks run; `auto` is a GPU if there is one.
        study: whose data section says how the data set is prepared; by default as the checkpoint's own study did.
        margins: shares of the Dice that may be lost: 0.05 is 5 %.

    Raises:
        InputError: for anything that is wrong with these. `out` is written whole or not at all.

    Example:
        >>> import vitrim
        >>> result = vitrim.evaluate("network", "data", "evaluation", cases="all")
        >>> sorted(result.summary["class"])
        ['average', 'bright', 'dark']
    """
    checked_name(cases, CaseGroup, "cases")
    hardware = Hardware.choose(checked_name(device, Device, "device"))
    out, checkpoint, data, reporter = new_folder(out), Path(checkpoint), Path(data), reporter or Reporter()
    provenance, section = read_provenance(checkpoint), data_section(study)
    network = open_network(checkpoint, model if against is None or needs_model(checkpoint) else None, section)
    mine, ids = _evaluated(checkpoint, network, provenance, data, out, reporter, section, cases, None, hardware)
    other = None
    if against is not None:
        against = Path(against)
        network = open_network(against, model if needs_model(against) else None, section)
        other, _ = _evaluated(
            against, network, read_provenance(against), data, out, reporter, section, cases, ids, hardware
        )
    found = EvaluationResult(mine, summarise(mine))
    comparison = None
    if other is not None:
        if set(other["class"]) != set(mine["class"]):
            raise InputError(
                f"{checkpoint} and {against} were not trained for the same classes: they cannot be compared"
            )
        difference = change(other, mine)
        found = EvaluationResult(
            mine,
            found.summary,
            difference,
            _sentence(difference, other, mine, margins),
            _as_json(difference, checkpoint, against, margins),
        )
        comparison = other.merge(mine, on=["case", "role", "class"], suffixes=("_other", ""), sort=False)
    with replacing(out) as unfinished:
        unfinished.mkdir()
        write_table(unfinished / "cases.csv", mine)
        write_table(unfinished / "summary.csv", found.summary)
        if comparison is not None:
            columns = ["case", "role", "class", *(f"{m}{end}" for m in METRICS for end in ("_other", ""))]
            write_table(unfinished / "comparison.csv", comparison[columns])
            write_json(unfinished / "comparison.json", found.comparison)
    return found


def summarise(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over cases of each metric, for each class and for their average.

    The interval of HD95 ends at the largest HD95 of any case and class: with few cases a limit beyond says nothing.
    A class counts in the cases whose reference has it; `cases` is their number. `false_positive_cases` is the number
    of other cases in which the class was predicted.
    """
    rows, wrong = [], false_positives(cases)
    cases = where_reference(cases)
    names = list(dict.fromkeys(cases["class"]))
    tables = {m: cases.pivot(index="case", columns="class", values=m)[names].to_numpy(np.float64) for m in METRICS}
    for place, name in [*enumerate(names), (None, AVERAGE)]:
        row: dict[str, Any] = {"class": name}
        for metric, table in tables.items():
            part = table if place is None else table[:, [place]]
            known = ~np.isnan(part).all(axis=1)
            row.setdefault("cases", int(known.sum()))
            means = pd.DataFrame(part).mean()  # over the cases that say something
            row[metric] = float(means.mean())
            most = METRICS[metric] or (float(np.nanmax(table)) if np.isfinite(table).any() else None)
            row[f"{metric}_low"], row[f"{metric}_high"] = average_interval(part[known], most=most)
        row["false_positive_cases"] = sum(wrong.values()) if place is None else wrong[str(name)]
        rows.append(row)
    return pd.DataFrame(rows)


def _interval_text(row: pd.Series, metric: str) -> str:
    digits = 1 if metric == "hd95" else 3
    if pd.isna(row[metric]):
        return "no case has it"
    text = f"{row[metric]:.{digits}f}"
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return text if pd.isna(low) else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _evaluated(
    checkpoint: Path,
    network: Network | Adapted,
    provenance: Provenance,
    folder: Path,
    out: Path,
    reporter: Reporter,
    study: DataConfig | None,
    group: CaseGroup,
    ids: tuple[str, ...] | None,
    hardware: Hardware,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    config, cases = cases_for(checkpoint, network, provenance, folder, study)
    provenance = with_split(provenance, cases)
    ids = ids or _chosen(cases, provenance, group, checkpoint)
    roles = provenance.roles
    used = [case for case in ids if roles.get(case) == "train"]
    if used:
        reporter.say(
            f"note: {checkpoint} was trained on {len(used)} of these {len(ids)} cases: results on them are optimistic"
        )
    with (
        prepared_data(config, cases, ids, out, reporter) as data,
        reporter.stage(f"evaluate {checkpoint}", len(ids)) as stage,
    ):
        found = evaluate_cases(fold_for_inference(network), data, ids, hardware, stage)
    found.insert(1, "role", [roles.get(case, "new") for case in found["case"]])
    return found, ids


def _chosen(cases: CaseSet, provenance: Provenance, group: CaseGroup, checkpoint: Path) -> tuple[str, ...]:
    roles = provenance.roles
    if group in ("validation", "train", "tuning") and not roles:
        raise InputError(f"it is not known which cases {checkpoint} was trained on: evaluate all of them, --cases all")
    labelled = tuple(case.id for case in cases.labelled)
    if group == "auto":
        held_out = tuple(case for case in labelled if roles.get(case) == "validation")
        return held_out or _some(labelled, f"no case in {cases.folder} has a label to compare with")
    wanted = labelled if group == "all" else tuple(case for case in labelled if roles.get(case) == group)
    return _some(wanted, f"{cases.folder} holds no labelled case of the kind {group!r} for {checkpoint}")


def _some(ids: tuple[str, ...], otherwise: str) -> tuple[str, ...]:
    if not ids:
        raise DataError(otherwise)
    return ids


def _sentence(difference: Change, other: pd.DataFrame, mine: pd.DataFrame, margins: tuple[float, ...]) -> str:
    text = f"average Dice {network_dice(other):.3f} -> {network_dice(mine):.3f}: {difference.percent:+.2f} %"
    if difference.low is None or difference.high is None:
        return f"{text}; too few cases for an interval and a verdict"
    verdicts = ", ".join(f"{difference.verdict(m)} at a margin of {100 * m:g} %" for m in margins)
    few = f" (a verdict needs {VERDICT_CASES} cases)" if difference.cases < VERDICT_CASES else ""
    return f"{text} (95 % interval {difference.low:+.2f} to {difference.high:+.2f}); {verdicts}{few}"


def _as_json(difference: Change, checkpoint: Path, against: Any, margins: tuple[float, ...]) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint),
        "against": str(against),
        "dice_change_percent": difference.percent,
        "low_percent": difference.low,
        "high_percent": difference.high,
        "effect_size": difference.effect,
        "cases": difference.cases,
        "provisional": difference.provisional,
        "cases_needed": {f"{100 * margin:g} %": difference.cases_needed(margin) for margin in margins},
        "verdicts": {f"{100 * margin:g} %": difference.verdict(margin) for margin in margins},
    }
