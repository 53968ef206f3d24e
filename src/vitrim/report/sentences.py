"""The sentences of the report."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any

import pandas as pd

from vitrim.attention import decision as flags
from vitrim.attention.decision import ROUNDING, Decision
from vitrim.attention.measures import MEASURES
from vitrim.compression.depth_decision import DepthDecision
from vitrim.report.formatting import fixed, interval_text, is_number, listing, plural, signed
from vitrim.report.run import NetworkRun, Run


def no_decision(network: NetworkRun) -> str:
    """Say that no depth was decided; with the answer of the attention rule, if there is one."""
    rule = network.rule
    if rule is None:
        return f"No decision is stored for {network.title}."
    return f"For {network.title} the attention rule says {plural(rule.depth, 'block')}; nothing was shown of it."


def recommendation(decided: DepthDecision | None, full: int) -> str:
    """Say what to do: "Keep 3 of 12 blocks". For a depth that was not judged, say whose wish it is."""
    if decided is None:
        return "No recommendation"
    kept = {full: f"all {full}", 0: f"none of the {full}"}.get(decided.depth, f"{decided.depth} of {full}")
    text = f"Keep {kept} blocks"
    if decided.set_by_hand:
        return f"{text} (set by hand)"
    return text if decided.judged else f"{text} (proposed, not tried)"


def fewer_blocks(decided: DepthDecision) -> str:
    """Say what Dice does with fewer blocks than recommended; empty if that is not known."""
    if decided.set_by_hand or not decided.judged or decided.reason:
        return ""
    if decided.verdict == "not shown":
        least = decided.smallest_tried
        return "" if least is None else f"The smallest depth tried, {least.depth}, is at {least.in_words()}."
    one = decided.smaller
    if one is None:
        return ""
    words = verdicts({f"{100 * decided.margin:g}": one.verdict(decided.margin)})
    return f"With {plural(one.depth, 'block')} Dice is at {one.in_words()}: {words}."


def saves(row: pd.Series, full: pd.Series) -> str:
    """Say what the truncated network saves: parameters and multiply-adds; empty if unknown.

    Not milliseconds: those of two networks were measured after their trainings, which can lie hours apart.
    """
    parts = []
    if is_number(row.get("parameters_saved_percent")):
        parts.append(f"{fixed(row['parameters_saved_percent'], 1)} % of the parameters")
    if is_number(row.get("multiply_adds")) and is_number(full.get("multiply_adds")):
        share = 100 * (1 - row["multiply_adds"] / full["multiply_adds"])
        parts.append(f"{fixed(share, 1)} % of the multiply-adds")
    return f"It saves {listing(parts)}." if parts else ""


def costs(row: pd.Series, full: pd.Series, margins: tuple[str, ...]) -> str:
    """Say how Dice changes in the truncated network, with interval and verdicts; empty if the change is unknown."""
    change = row.get("dice_change_percent")
    if not is_number(change):
        return ""
    text = (
        f"Average Dice goes from {fixed(full.get('average_dice'), 3)} to {fixed(row.get('average_dice'), 3)}, "
        f"a change of {signed(change, 2)} %"
    )
    low, high = row.get("change_low_percent"), row.get("change_high_percent")
    if is_number(low) and is_number(high):
        text += f" (95 % interval {interval_text(low, high, 2)} %)"
    else:
        text += " (too few cases for an interval)"
    said = verdicts({margin: row.get(f"verdict_{margin}") for margin in margins})
    return f"{text}: {said}." if said else f"{text}."


def verdicts(by_margin: Mapping[str, Any]) -> str:
    """Return the verdicts at all margins (percent) as part of a sentence; empty if there are none."""
    words = {
        "not worse": "not worse by more than",
        "worse": "worse by more than",
        "undecided": "undecided at a margin of",
    }
    parts = []
    for value, text in words.items():
        margins = [f"{margin} %" for margin, found in by_margin.items() if found == value]
        if margins:
            parts.append(f"{text} {' or '.join(margins)}")
    return listing(parts)


def explain_flags(network: NetworkRun, decision: Decision) -> list[str]:
    """Explain the flags of the decision. A warning about nearly uniform attention comes first."""
    count = plural(len(decision.cases), "training case")
    words = {
        flags.NO_INTERVAL: f"The depth has no interval, which needs at least 5 cases: {count} measured.",
        flags.FEW_CASES: f"The depth interval uses only {count}. A nominal 95 % interval then covers about 80 to 90 %.",
        flags.FALLS_BACK: "A later block does not reach the threshold: attention does not become more global with "
        "every block.",
        flags.NOT_REACHED: "No block reaches the threshold, so the rule removes no block.",
        flags.NOT_CERTAIN: "Part of the interval of a block reaches the threshold, but no block reaches it with its "
        "whole interval. So the rule removes no block.",
    }
    lines = [words.get(flag, f"Flag of the decision: {flag}.") for flag in decision.flags if flag != flags.UNIFORM]
    uniform = [block.block for block in decision.blocks if block.uniform]
    if uniform and min(uniform) <= decision.depth:
        return [nearly_uniform(network, decision), *lines]
    if uniform:
        entropy = fixed(decision.blocks[max(decision.depth, 1) - 1].entropy, 3)
        lines.insert(
            0,
            f"In {_blocks(uniform, len(decision.blocks))} attention is nearly uniform: these blocks may only average "
            f"over the image. The attention rule stops earlier, in block {decision.depth} (entropy {entropy}).",
        )
    started = untrained_reaches_it(network, decision)
    return [started, *lines] if started else lines


def untrained_reaches_it(network: NetworkRun, decision: Decision) -> str:
    """Say that the untrained network first reaches the threshold in the same block; empty if it does not."""
    found, measure = decision.at(decision.threshold), MEASURES[decision.measure]
    sign = -1 if measure.falls else 1
    known = [(block.block, block.untrained_value) for block in decision.blocks if block.untrained_value is not None]
    before = [(block, value) for block, value in known if sign * (value - decision.threshold) >= -ROUNDING]
    if not before or not found.reached or before[0][0] != found.depth:
        return ""
    return (
        f"The untrained {network.title} already reaches the threshold in block {found.depth} (its {measure.title} is "
        f"{fixed(before[0][1], 2)}), so the rule says nothing about training."
        f"{_beside_uniform(decision)}"
    )


def _beside_uniform(decision: Decision) -> str:
    """Compare globality and entropy of all blocks with uniform attention; empty for other measures."""
    entropies = [block.entropy for block in decision.blocks if block.entropy is not None]
    if decision.measure != "globality" or not entropies:
        return ""
    values = [block.value for block in decision.blocks]
    return (
        " Uniform attention also has globality 1 and entropy 1. Over the blocks of this network, "
        f"globality is {fixed(min(values), 2)} to {fixed(max(values), 2)}, "
        f"and entropy is {fixed(min(entropies), 2)} to {fixed(max(entropies), 2)}."
    )


def nearly_uniform(network: NetworkRun, decision: Decision) -> str:
    """Say that attention is nearly uniform in a block up to the depth, so the rule says nothing about training."""
    uniform = [block for block in decision.blocks if block.uniform]
    where = _blocks([block.block for block in uniform], len(decision.blocks))
    least = fixed(floor(1000 * min(block.entropy or 0.0 for block in uniform)) / 1000, 3)
    text = (
        f"In {where} the attention of {network.title} is nearly uniform: its entropy is {least}"
        f"{' or more' if len(uniform) > 1 else ''} (1: every patch gives the same weight to all patches)"
    )
    first = next((b for b in uniform if b.block >= decision.depth), uniform[0])
    if first.untrained_value is not None:
        name = MEASURES[decision.measure].title
        text += (
            f". In block {first.block} its {name} is {fixed(first.value, 2)}; in the same network before training it "
            f"is {fixed(first.untrained_value, 2)}"
        )
    return (
        f"{text}. Uniform attention is global by definition, so such a block may only be averaging. The answer of the "
        f"rule, {plural(decision.depth, 'block')}, says nothing about what this network learned. Only the change in "
        "Dice shows whether the other blocks can be removed."
    )


def _blocks(numbers: list[int], total: int) -> str:
    """List blocks in words: "every block", "block 3", "blocks 3 and 5 to 7"."""
    if len(numbers) == total:
        return "every block"
    return f"{'block' if len(numbers) == 1 else 'blocks'} {_ranges(numbers)}"


def _ranges(numbers: list[int]) -> str:
    """List numbers in words, with ranges of three or more: "1 to 3, 5 and 7 to 9"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for part in runs:
        parts += [str(n) for n in part] if len(part) < 3 else [f"{part[0]} to {part[-1]}"]
    return listing(parts)


def rule(decision: Decision) -> str:
    """Say how the attention rule chooses a depth."""
    measure = MEASURES[decision.measure]
    whose = {"mean": "", "max": " in its most global head"}.get(str(decision.head), f" in head {decision.head}")
    how = "at most" if measure.falls else "at least"
    return (
        f"The attention rule gives the number of the first block whose {measure.title}{whose} is {how} "
        f"{decision.threshold_text}. If there is an interval, all of it must reach this threshold."
    )


def setting(run: Run) -> str:
    """Say which cases and classes the study uses."""
    row = run.results.iloc[0]
    parts = []
    if is_number(row.get("train_cases")) and is_number(row.get("train_slices")):
        parts.append(f"{plural(int(row['train_cases']), 'training case')} ({int(row['train_slices']):,} slices)")
    if is_number(row.get("validation_cases")):
        parts.append(f"{plural(int(row['validation_cases']), 'validation case')} that were not used for any choice")
    parts.append(
        f"{len(run.classes)} classes: {', '.join(run.classes)}"
        if len(run.classes) > 1
        else f"1 class: {run.classes[0]}"
    )
    return "; ".join(parts) + "."
