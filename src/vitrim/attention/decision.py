"""The depth that a network needs, decided from its attention, with an interval and the measures that justify it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.attention.measures import MEASURES
from vitrim.attention.record import AttentionProfile
from vitrim.errors import InputError
from vitrim.files import write_json

FORMAT = "vitrim decision 1"
COVERAGE = 0.95
UNIFORM_ENTROPY = 0.98
INTERVAL_FROM, TRUSTED_FROM = 5, 10
"""Cases from which there is an interval, and from which its nominal coverage is about right."""
ROUNDING = 1e-6
"""Attention is measured in float32: what misses the threshold by less has reached it."""

UNIFORM = "indistinguishable from uniform"
NOT_REACHED = "no block reaches the threshold"
NOT_CERTAIN = "no block reaches the threshold for certain"
NO_INTERVAL = "fewer than 5 cases: no interval"
FEW_CASES = "fewer than 10 cases: the interval is too narrow"
FALLS_BACK = "a later block falls back below the threshold"


@dataclass(frozen=True)
class BlockValue:
    """The deciding measure in one block, and what puts it into proportion."""

    block: int
    value: float
    """Mean over cases."""
    low: float | None
    high: float | None
    """Bootstrap interval over cases; None with fewer than 5."""
    entropy: float | None
    """Entropy of the attention that decides, 1 when uniform; None where it was not measured."""
    untrained_value: float | None = None
    untrained_entropy: float | None = None
    """The same of the same network untrained; None where it was not looked at."""

    @property
    def uniform(self) -> bool:
        """Whether attention is indistinguishable from uniform here."""
        return self.entropy is not None and self.entropy >= UNIFORM_ENTROPY


@dataclass(frozen=True)
class Reached:
    """Where a threshold is reached."""

    depth: int
    """First block whose lower end reaches it (or value, where there is no interval); all blocks if none does."""
    low: int
    """First block whose upper end reaches it; all blocks if none does."""
    high: int
    """Same as the depth."""
    reached: bool
    """Whether the block `depth` reaches it."""


@dataclass(frozen=True)
class Decision:
    """How many blocks to keep, and why; `save` writes it so that a person can read, argue with and edit it."""

    depth: int
    """Blocks to keep; all later ones are discarded."""
    low: int
    high: int
    """The depth lies between these two, with 95 % confidence."""
    measure: str
    head: int | str
    """"mean": head-averaged attention; "max": the most global head; or the number of a head."""
    threshold: float
    flags: tuple[str, ...]
    blocks: tuple[BlockValue, ...]
    cases: tuple[str, ...]
    resamples: int
    seed: int

    def at(self, threshold: float) -> Reached:
        """The depth at another threshold, from the same values and intervals."""
        return _reached(self.blocks, threshold, MEASURES[self.measure].falls)

    def thresholds(self) -> list[float]:
        """Round thresholds that the file lists: 0.05 to 1, or 20 steps up to the largest value for distances."""
        top = 1.0
        if MEASURES[self.measure].unit in ("patches", "pixels", "mm"):
            top = max(block.value if block.high is None else block.high for block in self.blocks)
        return [round(top * step / 20, 4) for step in range(1, 21)]

    def sentence(self) -> str:
        """The decision in words, flags included."""
        total, title = len(self.blocks), MEASURES[self.measure].title
        whose = {"mean": "head-averaged attention", "max": "the most global head"}.get(
            str(self.head), f"head {self.head}"
        )
        verb = "falls to" if MEASURES[self.measure].falls else "reaches"
        found = self.at(self.threshold)
        count = f"{len(self.cases)} case{'s' if len(self.cases) != 1 else ''}"
        if self.depth != found.depth:
            words = [f"Keep {self.depth} of {total} blocks, set by hand; the rule says {found.depth}."]
        elif not found.reached:
            what = "for certain " if NOT_CERTAIN in self.flags else ""
            words = [
                f"Keep all {total} blocks: in none of them {what}the {title} of {whose} {verb} {self.threshold:.3g}."
            ]
        else:
            block = self.blocks[self.depth - 1]
            interval = "" if block.low is None else f", 95 % interval {block.low:.3g} to {block.high:.3g}"
            words = [
                f"Keep {self.depth} of {total} blocks: block {self.depth} is the first whose {title} "
                f"({whose}, {count}) {verb} {self.threshold:.3g} (it is {block.value:.3g}{interval})."
            ]
        if self.low != self.high:
            words.append(f"With 95 % confidence the depth is between {self.low} and {self.high}.")
        uniform = [block.block for block in self.blocks if block.uniform]
        if UNIFORM in self.flags:
            words.append(
                f"Attention is indistinguishable from uniform in {_listed(uniform)} (entropy at least "
                f"{UNIFORM_ENTROPY}): uniform attention is global by definition, but it averages rather than looks, "
                "and says nothing about what was learned."
            )
        if NO_INTERVAL in self.flags:
            words.append(f"There is no interval, because {count} are too few for one.")
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
        """Read a decision, also one whose depth a person has changed; InputError says what is wrong with it."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the decision {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} is not a decision: its format is not {FORMAT!r}")
        try:
            return cls(
                depth=_depth(content, path),
                low=int(content["low"]),
                high=int(content["high"]),
                measure=str(checked(content["measure"])),
                head=content["head"],
                threshold=float(content["threshold"]),
                flags=tuple(content["flags"]),
                blocks=tuple(BlockValue(**block) for block in content["blocks"]),
                cases=tuple(content["cases"]),
                resamples=int(content["interval"]["resamples"]),
                seed=int(content["interval"]["seed"]),
            )
        except KeyError as error:
            raise InputError(f"the decision {path} has no {error}") from error
        except (TypeError, ValueError) as error:
            raise InputError(f"the decision {path} cannot be read: {error}") from error


def checked(measure: str) -> str:
    """`measure`, if there is such a one; InputError otherwise."""
    if measure not in MEASURES:
        raise InputError(f"no such measure: {measure!r}; there are {', '.join(MEASURES)}")
    return measure


def _depth(content: dict[str, Any], path: Path) -> int:
    depth, total = content["depth"], len(content["blocks"])
    if not isinstance(depth, int) or isinstance(depth, bool) or not 0 <= depth <= total:
        raise InputError(f"the decision {path} has depth {depth!r}: it must be a whole number from 0 to {total}")
    return depth


def decide_depth(
    profile: AttentionProfile,
    *,
    measure: str = "globality",
    head: int | str = "mean",
    threshold: float = 2 / 3,
    untrained: AttentionProfile | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Decision:
    """The depth is the first block whose measure reaches the threshold; all later blocks are discarded.

    A 95 % percentile bootstrap over cases goes with it: if a is the first block whose upper end reaches the threshold
    and b the first whose lower end does, the depth is b, between a and b. Measures that fall as attention becomes
    global (self share, neighbourhood share, proximity correlation) reach it from above, with the ends exchanged. With
    fewer than 5 cases there is no interval, only the point estimate. If no block reaches the threshold, all are kept.

    Args:
        profile: of training cases only.
        head: "mean", the head-averaged attention; "max", in each block the head whose mean over cases is most global;
            or the number of a head, from 1.
        untrained: profile of the same network before training, put beside the values.

    Raises:
        InputError: if the profile does not hold the measure, or not for every case.
    """
    falls = MEASURES[checked(measure)].falls
    values = _deciding(profile, measure, head)  # (cases, blocks, heads in question)
    if np.isnan(values).any():
        raise InputError(f"{measure} is not known for every case (mm needs a spacing), or not for single heads")
    entropies = _means(profile, "entropy", head)
    before = (_means(untrained, measure, head), _means(untrained, "entropy", head)) if untrained else (None, None)
    if untrained and untrained.blocks != profile.blocks:
        raise InputError(f"the untrained network has {untrained.blocks} blocks, the trained one {profile.blocks}")
    point = _most_global(values.mean(axis=0), falls)
    ends = None
    if len(profile.cases) >= INTERVAL_FROM:
        ends = _bootstrap(values, falls, seed, resamples)
    blocks = tuple(
        BlockValue(
            block=b + 1,
            value=float(point[b]),
            low=None if ends is None else float(ends[0][b]),
            high=None if ends is None else float(ends[1][b]),
            entropy=_at(entropies, b),
            untrained_value=_at(before[0], b),
            untrained_entropy=_at(before[1], b),
        )
        for b in range(profile.blocks)
    )
    found = _reached(blocks, threshold, falls)
    return Decision(
        depth=found.depth,
        low=found.low,
        high=found.high,
        measure=measure,
        head=head,
        threshold=float(threshold),
        flags=_flags(blocks, found, threshold, falls, len(profile.cases)),
        blocks=blocks,
        cases=profile.cases,
        resamples=resamples,
        seed=seed,
    )


def _deciding(profile: AttentionProfile, measure: str, head: int | str) -> np.ndarray:
    """(cases, blocks, 1), or (cases, blocks, heads) for the most global head."""
    if head != "max":
        return profile.of(measure, head)[..., None]
    return np.stack([profile.of(measure, h) for h in range(1, max(profile.heads) + 1)], axis=-1)


def _most_global(means: np.ndarray, falls: bool) -> np.ndarray:
    """(..., blocks, heads) to (..., blocks)."""
    return means.min(axis=-1) if falls else means.max(axis=-1)


def _bootstrap(values: np.ndarray, falls: bool, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the percentile interval of the mean over cases, (blocks,) each."""
    cases = len(values)
    drawn = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=resamples)
    means = np.tensordot(drawn / cases, values, axes=1)  # (resamples, blocks, heads)
    low, high = np.quantile(_most_global(means, falls), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    return low, high


def _means(profile: AttentionProfile | None, measure: str, head: int | str) -> np.ndarray | None:
    """Mean over cases by block; None where the profile does not hold the measure."""
    if profile is None or measure not in profile.measures:
        return None
    return _most_global(_deciding(profile, measure, head).mean(axis=0), MEASURES[measure].falls)


def _at(values: np.ndarray | None, block: int) -> float | None:
    return None if values is None or np.isnan(values[block]) else float(values[block])


def _reached(blocks: tuple[BlockValue, ...], threshold: float, falls: bool) -> Reached:
    sure = [_reaches(block, threshold, falls, surely=True) for block in blocks]
    perhaps = [_reaches(block, threshold, falls, surely=False) for block in blocks]
    depth = sure.index(True) + 1 if True in sure else len(blocks)
    low = perhaps.index(True) + 1 if True in perhaps else len(blocks)
    return Reached(depth=depth, low=low, high=depth, reached=True in sure)


def _reaches(block: BlockValue, threshold: float, falls: bool, *, surely: bool) -> bool:
    end = block.low if surely != falls else block.high
    end = block.value if end is None else end
    return end <= threshold + ROUNDING if falls else end >= threshold - ROUNDING


def _flags(
    blocks: tuple[BlockValue, ...], found: Reached, threshold: float, falls: bool, cases: int
) -> tuple[str, ...]:
    flags = []
    if any(block.uniform for block in blocks):
        flags.append(UNIFORM)
    if not found.reached:
        possible = any(_reaches(block, threshold, falls, surely=False) for block in blocks)
        flags.append(NOT_CERTAIN if possible else NOT_REACHED)
    elif not all(_reaches(block, threshold, falls, surely=False) for block in blocks[found.depth :]):
        flags.append(FALLS_BACK)
    if cases < INTERVAL_FROM:
        flags.append(NO_INTERVAL)
    elif cases < TRUSTED_FROM:
        flags.append(FEW_CASES)
    return tuple(flags)


def _listed(blocks: list[int]) -> str:
    """ "block 3", "blocks 1 to 4", "blocks 1, 3 and 7"."""
    if len(blocks) == 1:
        return f"block {blocks[0]}"
    if len(blocks) > 2 and blocks == list(range(blocks[0], blocks[-1] + 1)):
        return f"blocks {blocks[0]} to {blocks[-1]}"
    return f"blocks {', '.join(str(b) for b in blocks[:-1])} and {blocks[-1]}"
