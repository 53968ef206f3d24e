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
            "sentence": tolerated.sentence(),
            "tolerance": tolerated.tolerance,
            "cases": tolerated.cases,
            "tried": [tried.as_json() for tried in tolerated.tried],
            "seconds": round(sum(tried.seconds for tried in tolerated.tried), 2),
        },
    }


def markdown(account: dict[str, Any], network: Network) -> str:
    """The account as a page: what was made, and the choices by attention and by accuracy side by side."""
    before, after = account["before"], account["after"]
    text = [f"# {account['network']}: {before['blocks']} -> {after['blocks']} blocks", ""]
    rows: list[list[str]] = [
        [name, _number(before[key], digits), _number(after[key], digits), f"{_saved(before[key], after[key]):.2f} %"]
        for name, key, digits in (
            ("parameters", "parameters", 0),
            ("multiply-adds of a slice", "multiply_adds", 0),
            (f"milliseconds a slice ({after['device']})", "milliseconds_per_slice", 1),
            ("peak memory, MiB", "peak_memory_mib", 0),
        )
    ]
    text += table(["", "before", "after", "saved"], rows)
    how = {"none": "not trained on", "finetune": "trained on", "distil": "distilled from the full network"}
    kept = ", ".join(map(str, account["kept"])) or "none"
    text += ["", f"Blocks kept ({account['method']}): {kept}; {how[account['recovery']]}.", ""]
    choices = {"attention": account["by_attention"], "accuracy": account["by_accuracy"]}
    made = {way: choice for way, choice in choices.items() if choice}
    if made:
        whole = count_parameters(network)
        text += ["## How many blocks", ""]
        rows = []
        for way, choice in made.items():
            saved = _saved(whole, count_parameters(network.truncated(choice["depth"])))
            rows.append([f"by {way}", str(choice["depth"]), f"{saved:.2f} %"])
        text += [*table(["choice", "blocks", "parameters saved"], rows), ""]
        text += [f"- {choice['sentence']}" for choice in made.values()]
    if accuracy := account["by_accuracy"]:
        text += ["", "Tried, in this order (change in Dice with its 95 % interval over cases):", ""]
        tried = [
            [
                str(one["depth"]),
                f"{one['percent']:+.2f} % ({one['low']:+.2f} to {one['high']:+.2f})",
                "yes" if one["enough"] else "no",
                f"{one['seconds']:.0f}",
            ]
            for one in accuracy["tried"]
        ]
        text += table(["blocks", "change", "not worse", "seconds"], tried)
    return "\n".join(text) + "\n"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table as lines; the first column is text, the others numbers."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows)]


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _saved(before: float, after: float) -> float:
    """Percent, by the paper's equation 5."""
    return 100 * (before - after) / before


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
        said.append(f"{name}: {a / scale:,.{digits}f} -> {b / scale:,.{digits}f}{unit} ({_saved(a, b):.2f} % saved)")
    if account["recovery"] == "none" and before["blocks"] > after["blocks"]:
        said.append("the surviving weights are a starting point: train on before use (--recover finetune or distil)")
    return said
