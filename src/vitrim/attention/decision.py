"""The answer of the attention rule: its values by block, its text, other thresholds, and a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitrim.attention.measures import MEASURES, checked_measures
from vitrim.errors import InputError, WeightsError
from vitrim.files import parse_json, read_json, short_reason, write_json
from vitrim.metrics.intervals import COVERAGE

FORMAT = "vitrim decision 1"
RULE_FILE = "attention_rule.json"
"""Name of the file in a folder of attention results. Version 0.1.0 named it decision.json."""
UNIFORM_ENTROPY = 0.98
ROUNDING = 1e-6
"""Tolerance for float32 rounding: a value that misses the threshold by less than this still reaches it."""

UNIFORM = "indistinguishable from uniform"
NOT_REACHED = "no block reaches the threshold"
NOT_CERTAIN = "no block reaches the threshold for certain"
NO_INTERVAL = "fewer than 5 cases: no interval"
FEW_CASES = "fewer than 10 cases: the interval is too narrow"
FALLS_BACK = "a later block falls back below the threshold"


@dataclass(frozen=True)
class BlockValue:
    """The deciding measure in one block, with its interval, its entropy and the untrained network's values."""

    block: int
    value: float
    """Mean over cases."""
    low: float | None
    high: float | None
    """95 % bootstrap interval over cases; None with fewer than 5 cases."""
    entropy: float | None
    """Entropy of the deciding attention, 1 if uniform; None if it was not measured."""
    untrained_value: float | None = None
    untrained_entropy: float | None = None
    """Value and entropy of the same network before training; None if they were not measured."""
    least_entropy: float | None = None
    """Smallest entropy of a single head, for head-averaged attention: an average can be uniform where a head is not."""

    @property
    def uniform(self) -> bool:
        """True if every head of this block is indistinguishable from uniform (entropy at least 0.98)."""
        entropy = self.entropy if self.least_entropy is None else self.least_entropy
        return entropy is not None and entropy >= UNIFORM_ENTROPY


@dataclass(frozen=True)
class Reached:
    """The depth at one threshold."""

    depth: int
    """First block whose whole interval reaches the threshold (its value if it has no interval). If no block does, the
    number of all blocks."""
    low: int
    """First block with at least one end of its interval that reaches the threshold. If no block does, the number of all
    blocks."""
    high: int
    """Same as `depth`."""
    reached: bool
    """True if a block reaches the threshold with its whole interval."""


@dataclass(frozen=True)
class Decision:
    """How many blocks to keep, and the values behind this decision. `save` writes it as a file that users can edit.

    docs/definitions.md defines the rule, its interval and its flags.
    """

    depth: int
    """Number of blocks to keep. All later blocks are discarded."""
    low: int
    high: int
    """Depths that the intervals of the single blocks allow. This is not a 95 % interval: it looks at several blocks."""
    measure: str
    head: int | str
    """"mean": head-averaged attention. "max": the most global head of each block. A number: this head, from 1."""
    threshold: float
    flags: tuple[str, ...]
    blocks: tuple[BlockValue, ...]
    cases: tuple[str, ...]
    resamples: int
    seed: int

    @property
    def falls(self) -> bool:
        """Whether the measure falls when attention becomes global."""
        return MEASURES[self.measure].falls

    def at(self, threshold: float) -> Reached:
        """Return the depth at another threshold, from the same values and intervals."""
        return reached(self.blocks, threshold, MEASURES[self.measure].falls)

    def thresholds(self) -> list[float]:
        """Thresholds that the file lists: 0.05 to 1 in steps of 0.05.

        For a distance, they are 20 equal steps up to the largest upper end of the blocks.
        """
        top = 1.0
        if MEASURES[self.measure].is_distance:
            top = max(block.value if block.high is None else block.high for block in self.blocks)
        return [round(top * step / 20, 4) for step in range(1, 21)]

    @property
    def threshold_text(self) -> str:
        """The threshold as text; the default as 2/3."""
        return "2/3" if self.threshold == 2 / 3 else f"{self.threshold:.3g}"

    def sentence(self) -> str:
        """Return the decision and its flags as text."""
        total, title = len(self.blocks), MEASURES[self.measure].title
        whose = {"mean": "head-averaged attention", "max": "the most global head"}.get(
            str(self.head), f"head {self.head}"
        )
        verb = "falls to" if MEASURES[self.measure].falls else "reaches"
        found = self.at(self.threshold)
        count = f"{len(self.cases)} case{'s' if len(self.cases) != 1 else ''}"
        if self.depth != found.depth:
            words = [f"{self.depth} of {total} blocks, set by hand; the attention rule says {found.depth}."]
        elif not found.reached:
            what = " with its whole 95 % interval" if NOT_CERTAIN in self.flags else ""
            words = [
                f"The attention rule says all {total} blocks: there is no block in which the {title} of {whose} {verb} "
                f"{self.threshold_text}{what}."
            ]
        else:
            block = self.blocks[self.depth - 1]
            how = f"(it is {block.value:.3g})"
            if block.low is not None:
                how = f"with its whole 95 % interval (it is {block.value:.3g}, {block.low:.3g} to {block.high:.3g})"
            words = [
                f"The attention rule says {self.depth} of {total} blocks: block {self.depth} is the first whose "
                f"{title} ({whose}, {count}) {verb} {self.threshold_text} {how}."
            ]
        if self.low != self.high:
            words.append(f"The intervals of the single blocks allow depths from {self.low} to {self.high}.")
        uniform = [block.block for block in self.blocks if block.uniform]
        if UNIFORM in self.flags and uniform:
            words.append(
                f"Attention is indistinguishable from uniform in {_listed(uniform)} (entropy at least "
                f"{UNIFORM_ENTROPY}). Uniform attention counts as global by definition, but it may only average over "
                "the image. It says nothing about what the network learned."
            )
        if NO_INTERVAL in self.flags:
            words.append(f"There is no interval, which needs at least 5 cases: {count} measured.")
        if FEW_CASES in self.flags:
            words.append(f"With {count} the interval covers less than its nominal 95 % (about 80 to 90 %).")
        if FALLS_BACK in self.flags:
            words.append("A later block falls back below the threshold.")
        return " ".join(words)

    def save(self, path: Path) -> None:
        """Write the decision as JSON to `path`."""
        found = [(threshold, self.at(threshold)) for threshold in self.thresholds()]
        write_json(
            Path(path),
            {
                "format": FORMAT,
                "depth": self.depth,
                "low": self.low,
                "high": self.high,
                "in_words": self.sentence(),
                "measure": self.measure,
                "head": self.head,
                "threshold": self.threshold,
                "flags": list(self.flags),
                "interval": {"coverage": COVERAGE, "resamples": self.resamples, "seed": self.seed},
                "blocks": [asdict(block) for block in self.blocks],
                "depth_at_threshold": [
                    {"threshold": t, "depth": r.depth, "low": r.low, "high": r.high, "reached": r.reached}
                    for t, r in found
                ],
                "cases": list(self.cases),
            },
        )

    @classmethod
    def load(cls, path: Path) -> Decision:
        """Read a decision. A user may have changed its depth. Raises WeightsError if the file cannot be used."""
        path = Path(path)
        content = decision_content(path, (FORMAT,))
        try:
            return cls(
                depth=_depth(content, path),
                low=int(content["low"]),
                high=int(content["high"]),
                measure=checked_measures([content["measure"]])[0],
                head=content["head"],
                threshold=float(content["threshold"]),
                flags=tuple(content["flags"]),
                blocks=tuple(BlockValue(**block) for block in content["blocks"]),
                cases=tuple(content["cases"]),
                resamples=int(content["interval"]["resamples"]),
                seed=int(content["interval"]["seed"]),
            )
        except KeyError as error:
            raise WeightsError(f"the decision {path} has no {error}") from error
        except Exception as error:  # whatever an edited file raises
            raise WeightsError(f"the decision {path} cannot be read: {short_reason(error)}") from error


def decision_content(path: Path, formats: Sequence[str]) -> dict[str, Any]:
    """Read the JSON of a decision in one of these formats. Raises WeightsError if the file cannot be used."""
    if not path.is_file():
        raise WeightsError(f"cannot read the decision {path}: there is no such file")
    try:
        content = parse_json(path)
    except InputError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") not in formats:
        raise WeightsError(f"{path} is not a decision: its format is not {formats[0]!r}")
    return content


def stored_rule(folder: Path) -> Decision | None:
    """Read the decision of the attention rule in a folder of attention results, also one of version 0.1.0.

    None if there is none. Raises WeightsError if the file cannot be used.
    """
    if (folder / RULE_FILE).is_file():
        return Decision.load(folder / RULE_FILE)
    older = folder / "decision.json"
    return Decision.load(older) if older.is_file() and read_json(older).get("format") == FORMAT else None


def _depth(content: dict[str, Any], path: Path) -> int:
    depth, total = content["depth"], len(content["blocks"])
    if not isinstance(depth, int) or isinstance(depth, bool) or not 0 <= depth <= total:
        raise WeightsError(f"the decision {path} has depth {depth!r}: it must be a whole number from 0 to {total}")
    return depth


def reached(blocks: tuple[BlockValue, ...], threshold: float, falls: bool) -> Reached:
    """Find the depth at `threshold`. `falls`: the measure falls when attention becomes global."""
    sure = [reaches(block, threshold, falls, surely=True) for block in blocks]
    perhaps = [reaches(block, threshold, falls, surely=False) for block in blocks]
    depth = sure.index(True) + 1 if True in sure else len(blocks)
    low = perhaps.index(True) + 1 if True in perhaps else len(blocks)
    return Reached(depth=depth, low=low, high=depth, reached=True in sure)


def reaches(block: BlockValue, threshold: float, falls: bool, *, surely: bool) -> bool:
    """True if the block reaches the threshold: with its whole interval if `surely`, else with at least one end."""
    end = block.low if surely != falls else block.high
    end = block.value if end is None else end
    return end <= threshold + ROUNDING if falls else end >= threshold - ROUNDING


def _listed(blocks: list[int]) -> str:
    """Name blocks in text: "block 3", "blocks 1 to 4", "blocks 1, 3 and 7"."""
    if len(blocks) == 1:
        return f"block {blocks[0]}"
    if len(blocks) > 2 and blocks == list(range(blocks[0], blocks[-1] + 1)):
        return f"blocks {blocks[0]} to {blocks[-1]}"
    return f"blocks {', '.join(str(b) for b in blocks[:-1])} and {blocks[-1]}"
