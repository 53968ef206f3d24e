"""compression.md: the network before and after compression, with the depths chosen by attention and by accuracy."""

from __future__ import annotations

from typing import Any

from vitrim.compression.summary import saved_percent
from vitrim.report.tables import markdown_table

RECOVERY = {"none": "not trained further", "finetune": "trained further", "distil": "distilled from the full network"}


def compression_page(summary: dict[str, Any]) -> str:
    """Return the page as Markdown, from the result of `vitrim.compression.summary.summarise_compression`."""
    before, after = summary["before"], summary["after"]
    parts = [f"# {summary['network']}: {before['blocks']} -> {after['blocks']} blocks"]
    rows = [
        [name, f"{before[key]:,.{digits}f}", f"{after[key]:,.{digits}f}", _percent(before[key], after[key])]
        for name, key, digits in (
            ("parameters", "parameters", 0),
            ("multiply-adds per slice", "multiply_adds", 0),
            (f"milliseconds per slice ({after['device']})", "milliseconds_per_slice", 1),
            ("peak memory, MiB", "peak_memory_mib", 0),
        )
    ]
    parts.append(markdown_table(["", "before", "after", "saved"], rows))
    kept = ", ".join(map(str, summary["kept"])) or "none"
    parts.append(f"Blocks kept ({summary['method']}): {kept}; {RECOVERY[summary['recovery']]}.")
    choices = {way: summary[f"by_{way}"] for way in ("procedure", "attention", "accuracy") if summary[f"by_{way}"]}
    if choices:
        rows = [
            [f"by {way}", str(choice["depth"]), f"{choice['parameters_saved_percent']:.2f} %"]
            for way, choice in choices.items()
        ]
        parts += ["## How many blocks", markdown_table(["choice", "blocks", "parameters saved"], rows)]
        parts.append("\n".join(f"- {choice['sentence']}" for choice in choices.values()))
    if accuracy := summary["by_accuracy"]:
        rows = [
            [
                str(trial["depth"]),
                f"{trial['percent']:+.2f} % ({trial['low']:+.2f} to {trial['high']:+.2f})",
                "yes" if trial["enough"] else "no",
                f"{trial['seconds']:.0f}",
            ]
            for trial in accuracy["tried"]
        ]
        parts.append("Tried, in this order (change in Dice with its 95 % interval over cases):")
        parts.append(markdown_table(["blocks", "change", "not worse", "seconds"], rows))
    return "\n\n".join(parts) + "\n"


def _percent(before: float, after: float) -> str:
    return f"{saved_percent(before, after):.2f} %"
