"""Summary of a compression: cost and savings, as JSON content and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitrim.attention.decision import Decision
from vitrim.compression.block_selection import Choice
from vitrim.compression.depth_decision import DepthDecision
from vitrim.compression.depth_search import DepthSearch
from vitrim.evaluation.cost import measure_costs
from vitrim.hardware import Hardware
from vitrim.models.adapt import Adapted
from vitrim.models.describe import count_parameters, counts
from vitrim.models.network import Network
from vitrim.training.loop import Training


def costs_of(networks: Sequence[Network | Adapted], images: np.ndarray, hardware: Hardware) -> list[dict[str, Any]]:
    """Return size and speed of each network: blocks, parameters, multiply_adds, and the values of `measure_costs`."""
    measured = measure_costs(networks, images, hardware)
    return [
        {
            "blocks": network.depth,
            **counts(network)._asdict(),
            **cost,
        }
        for network, cost in zip(networks, measured, strict=True)
    ]


def summarise_compression(
    network: Network | Adapted,
    before: dict[str, Any],
    after: dict[str, Any],
    choice: Choice,
    recovery: str,
    training: Training | None,
    decided: Decision | DepthDecision | None,
    search: DepthSearch | None,
) -> dict[str, Any]:
    """Return all steps and measurements as JSON content. `before` and `after` are `costs_of` the two networks."""

    def by(depth: int, sentence: str) -> dict[str, Any]:
        parameters = count_parameters(network.truncated(depth))
        return {
            "depth": depth,
            "sentence": sentence,
            "parameters_saved_percent": saved_percent(before["parameters"], parameters),
        }

    return {
        "network": network.name,
        "method": choice.criterion,
        "kept": list(choice.kept),
        "scores": None if choice.scores is None else list(choice.scores),
        "recovery": recovery,
        "recovery_steps": None if training is None else len(training.losses),
        "recovery_seconds": None if training is None else round(training.seconds, 2),
        "before": before,
        "after": after,
        "by_attention": by(decided.depth, decided.sentence()) if isinstance(decided, Decision) else None,
        "by_procedure": by(decided.depth, decided.in_words()) if isinstance(decided, DepthDecision) else None,
        "by_accuracy": None
        if search is None
        else {
            **by(search.depth, search.sentence()),
            "tolerance": search.tolerance,
            "cases": search.cases,
            "tried": [trial.as_json() for trial in search.trials],
            "seconds": round(sum(trial.seconds for trial in search.trials), 2),
        },
    }


def saved_percent(before: float, after: float) -> float:
    """Return the saving in percent (paper, equation 5)."""
    return 100 * (before - after) / before


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Return the summary as lines of text; savings follow equation 5 of the paper."""
    before, after = summary["before"], summary["after"]
    lines = []
    if summary["by_procedure"]:
        lines.append(summary["by_procedure"]["sentence"])
    if summary["by_attention"]:
        lines.append(f"by attention: {summary['by_attention']['sentence']}")
    if summary["by_accuracy"]:
        lines.append(summary["by_accuracy"]["sentence"])
    lines.append(f"{summary['network']}: {before['blocks']} -> {after['blocks']} blocks")
    if summary["method"] != "first":
        kept = ", ".join(map(str, summary["kept"])) or "none"
        lines.append(f"blocks kept by {summary['method']}: {kept}")
    for name, key, unit, scale, digits in (
        ("parameters", "parameters", "", 1, 0),
        ("multiply-adds", "multiply_adds", " billion", 1e9, 2),
        ("latency", "milliseconds_per_slice", f" ms a slice on this {after['device']}", 1, 1),
    ):
        a, b = before[key], after[key]
        saved = saved_percent(a, b)
        lines.append(f"{name}: {a / scale:,.{digits}f} -> {b / scale:,.{digits}f}{unit} ({saved:.2f} % saved)")
    if summary["recovery"] == "none" and before["blocks"] > after["blocks"]:
        lines.append("the kept weights are only a starting point: train before use (--recover finetune or distil)")
    return lines
