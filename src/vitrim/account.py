"""What making a network smaller costs and saves, as data and in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitrim.attention.decision import Decision
from vitrim.choose import Choice
from vitrim.config import TrainConfig
from vitrim.cost import measure_cost
from vitrim.models.describe import count_macs, count_parameters
from vitrim.models.network import Network
from vitrim.tolerance import Tolerated
from vitrim.train import Training


def cost_of(network: Network, images: np.ndarray, config: TrainConfig) -> dict[str, Any]:
    """Size and speed of a network: blocks, parameters, multiply_adds, and what `measure_cost` gives."""
    return {
        "blocks": network.depth,
        "parameters": count_parameters(network),
        "multiply_adds": count_macs(network),
        **measure_cost(network, images, config),
    }


def account(
    name: str,
    before: dict[str, Any],
    after: dict[str, Any],
    choice: Choice,
    recovery: str,
    training: Training | None,
    decided: Decision | None,
    tolerated: Tolerated | None,
) -> dict[str, Any]:
    """Everything that was done and measured, JSON-able; `before` and `after` are `cost_of` the two networks."""
    return {
        "network": name,
        "method": choice.method,
        "kept": list(choice.kept),
        "scores": None if choice.scores is None else list(choice.scores),
        "recovery": recovery,
        "recovery_steps": None if training is None else len(training.losses),
        "recovery_seconds": None if training is None else round(training.seconds, 2),
        "before": before,
        "after": after,
        "by_attention": None if decided is None else {"depth": decided.depth, "sentence": decided.sentence()},
        "by_accuracy": None
        if tolerated is None
        else {
            "depth": tolerated.depth,
            "tolerance": tolerated.tolerance,
            "cases": tolerated.cases,
            "tried": [tried.as_json() for tried in tolerated.tried],
            "seconds": round(sum(tried.seconds for tried in tolerated.tried), 2),
        },
    }


def lines(account: dict[str, Any], decided: Decision | None, tolerated: Tolerated | None) -> list[str]:
    """The account in words; savings are those of the paper's equation 5."""
    before, after = account["before"], account["after"]
    said = []
    if decided is not None:
        said.append(f"by attention: {decided.sentence()}")
    if tolerated is not None:
        said.append(tolerated.sentence())
    said.append(f"{account['network']}: {before['blocks']} -> {after['blocks']} blocks")
    if account["method"] != "first":
        kept = ", ".join(map(str, account["kept"])) or "none"
        said.append(f"blocks kept by {account['method']}: {kept}")
    for name, key, unit, scale, digits in (
        ("parameters", "parameters", "", 1, 0),
        ("multiply-adds", "multiply_adds", " billion", 1e9, 2),
        ("latency", "milliseconds_per_slice", f" ms a slice on this {after['device']}", 1, 1),
    ):
        a, b = before[key], after[key]
        saved = 100 * (a - b) / a
        said.append(f"{name}: {a / scale:,.{digits}f} -> {b / scale:,.{digits}f}{unit} ({saved:.2f} % saved)")
    if account["recovery"] == "none" and before["blocks"] > after["blocks"]:
        said.append("the surviving weights are a starting point: train on before use (--recover finetune or distil)")
    return said
