"""A decided depth with its verdict: in words, and as the file decision.json, which users can read and edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
from pydantic import ValidationError

from vitrim.attention.decision import FORMAT as RULE_FORMAT
from vitrim.attention.decision import RULE_FILE, Decision, decision_content
from vitrim.compression.depth_procedure import segments_nothing
from vitrim.config.names import DecoderForm
from vitrim.config.network_schema import Strict
from vitrim.config.reading import explain
from vitrim.errors import WeightsError
from vitrim.files import write_json
from vitrim.metrics.statistics import FIRM_CASES, FIRM_SEEDS, Change, change, signed

if TYPE_CHECKING:
    from vitrim.models.network import Network

FORMAT = "vitrim decision 2"
FORMATS = (FORMAT, RULE_FORMAT)
"""Formats that can be read: the own one, and that of the attention rule, which version 0.1.0 wrote."""
DECISION = "decision.json"

Verdict = Literal["needs", "enough", "nothing", "not shown"]
"""What was shown of the depth. `needs`: it is not worse, and the next smaller form is worse. `enough`: it is not worse;
whether fewer are was not shown. `nothing`: no block at all is not worse. `not shown`: no smaller depth was shown to be
as good."""


class DepthResult(Strict):
    """A smaller network compared with the full one on the same cases."""

    depth: int
    percent: float
    """Change in Dice, in percent."""
    low: float | None
    high: float | None
    cases: int
    seeds: int
    verdicts: dict[str, str]
    """Verdict by margin in percent, for example {"5": "not worse", "1": "undecided"}."""

    @classmethod
    def of(cls, depth: int, difference: Change, margins: Sequence[float]) -> DepthResult:
        """Return the result of a comparison."""
        verdicts = {f"{100 * margin:g}": difference.verdict(margin) for margin in margins}
        return cls(
            depth=depth,
            percent=difference.percent,
            low=difference.low,
            high=difference.high,
            cases=difference.cases,
            seeds=difference.seeds,
            verdicts=verdicts,
        )

    def verdict(self, margin: float) -> str:
        """Return the verdict at a margin."""
        return self.verdicts.get(f"{100 * margin:g}", "undecided")

    def in_words(self, bracketed: bool = False) -> str:
        """Return change and interval: "−6.7 % (−10.7 to −3.2)", or with `bracketed` "(−6.7 %, −10.7 to −3.2)"."""
        change = f"{signed(self.percent)} %"
        if self.low is None or self.high is None:
            return f"({change})" if bracketed else change
        interval = f"{signed(self.low)} to {signed(self.high)}"
        return f"({change}, {interval})" if bracketed else f"{change} ({interval})"


class DepthDecision(Strict):
    """How many blocks to keep, what was shown of it, and everything that it rests on."""

    network: str
    """Title of the network."""
    full: int
    """Number of blocks of the full network."""
    depth: int
    """Number of blocks to keep."""
    verdict: Verdict
    margin: float
    proposed: int
    """Depth that the rule proposed."""
    rule: str
    """Name of the rule that proposed (`vitrim.compression.depth_rules`)."""
    proposed_on: str
    """The cases on which the exchange curve was measured: tuning or training."""
    rules: dict[str, int | None]
    """Depth that each rule gives; None if it cannot choose."""
    untrained: dict[str, int | None]
    """The same for the network before training, as far as that has a meaning."""
    changed_by_training: bool = False
    """Whether training changed the answer of the attention rule."""
    exchange_percent: float | None = None
    """Change in Dice without any exchange between patches, in percent."""
    tried: tuple[DepthResult, ...] = ()
    """Every smaller network that was trained, on tuning cases, from deep to shallow."""
    order: tuple[int, ...] = ()
    """The depths that the search trained, in this order."""
    confirmed: DepthResult | None = None
    """The chosen depth, on held-out cases."""
    smaller: DepthResult | None = None
    """The next smaller trained depth, on held-out cases."""
    noise: DepthResult | None = None
    """The full network with another seed, on held-out cases."""
    smallest_form: bool = False
    """Whether this kind of network has no form with fewer blocks than the confirmed one."""
    judged_on: str = "held-out"
    """The cases of the verdict: held-out, or tuning if there are no held-out cases."""
    folds: int = 1
    trained_on: bool = True
    """Whether the smaller networks were trained; if not, "needs" is never said."""
    also_removed: str = ""
    """What the cut removes beside blocks, in words."""
    judged: bool = True
    """Whether smaller networks were compared at all; if not, `depth` is only what the rule proposes."""
    reason: str = ""
    """Why nothing could be shown, if that has another reason than the comparison."""

    @property
    def tells(self) -> bool:
        """Whether attention tells something: exchange is needed, or training changed the answer of the rule."""
        return bool(self.rules.get("exchange")) or self.changed_by_training

    @property
    def judged_depth(self) -> int:
        """The depth that the verdict is about."""
        if not self.judged:
            return self.proposed
        return self.confirmed.depth if self.verdict != "not shown" and self.confirmed is not None else self.full

    @property
    def set_by_hand(self) -> bool:
        """Whether a user changed the depth in the file."""
        return self.depth != self.judged_depth

    @property
    def provisional(self) -> bool:
        """Whether the verdict rests on few cases or few seeds."""
        judged = self.confirmed
        return judged is not None and (judged.cases < FIRM_CASES or judged.seeds < FIRM_SEEDS)

    def claim(self) -> str:
        """Return the verdict as a sentence without its numbers and without its full stop."""
        if self.set_by_hand:
            return f"{self.depth} of {self.full} blocks were set by hand for {self.network}; nothing was shown of them"
        if not self.judged:
            return (
                f"For {self.network} the rule {self.rule!r} proposes {self.depth} of {self.full} blocks. Whether they "
                "are enough was not shown: no smaller network was trained"
            )
        if self.verdict == "needs":
            return f"{self.network} needs {self.depth} of its {self.full} blocks"
        if self.verdict == "enough":
            fewer = "it has no smaller form" if self.smallest_form else "whether fewer are was not shown"
            are = "is" if self.depth == 1 else "are"
            return f"{self.depth} of {self.full} blocks {are} enough for {self.network}; {fewer}"
        if self.verdict == "nothing":
            return f"On these data the transformer does nothing for Dice in {self.network}"
        if self.reason:
            return f"Cannot tell how many blocks {self.network} needs: {self.reason}"
        return f"No smaller depth of {self.network} was shown to be as good"

    def headline(self) -> str:
        """Return the verdict as a sentence."""
        claim, percent = self.claim(), f"{100 * self.margin:g} %"
        if self.set_by_hand or not self.judged or self.reason:
            return f"{claim}."
        if self.verdict == "needs" and self.confirmed and self.smaller:
            return (
                f"{claim}: with {self.depth} Dice is not worse by {percent} {self.confirmed.in_words(bracketed=True)}, "
                f"with {self.smaller.depth} it is {self.smaller.in_words(bracketed=True)}."
            )
        if self.verdict == "enough" and self.confirmed:
            return f"{claim}. Dice is not worse by {percent}: {self.confirmed.in_words()}."
        if self.verdict == "nothing" and self.confirmed:
            return (
                f"{claim}: without any of its {self.full} blocks Dice is not worse by {percent} "
                f"{self.confirmed.in_words(bracketed=True)}."
            )
        least = self.smallest_tried
        return (
            f"{claim}." if least is None else f"{claim}. The smallest tried, {least.depth}, is at {least.in_words()}."
        )

    @property
    def smallest_tried(self) -> DepthResult | None:
        """The result with the fewest blocks; on held-out cases, if the same depth was judged on both."""
        tried = [*([self.confirmed] if self.confirmed else []), *self.tried]
        return min(tried, key=lambda result: result.depth, default=None)

    def attention_note(self) -> str:
        """Say that attention does not decide, and why; empty if it tells something."""
        if self.tells or not self.rules:
            return ""
        before = self.untrained.get("globality")
        parts = [] if before is None else [f"before any training the rule says {before} as well"]
        if self.exchange_percent is not None:
            change = signed(self.exchange_percent)
            parts.append(f"without any exchange between patches Dice changes by {change} %")
        return f"Attention does not decide here{': ' if parts else ''}{', and '.join(parts)}."

    def notes(self) -> list[str]:
        """Return what else must be known: whether attention tells something, and on how much the verdict rests."""
        return [*([note] if (note := self.attention_note()) else []), *self.evidence_notes()]

    def evidence_notes(self) -> list[str]:
        """Return on how much the verdict rests, and what disturbs it."""
        lines = []
        judged = self.confirmed
        if judged is not None and not self.set_by_hand:
            trained = "of these two trained networks" if judged.seeds == 1 else f"and {judged.seeds} seeds"
            words = f"The verdict rests on {judged.cases} {self.judged_on} cases {trained}"
            lines.append(f"{words}{'; it is provisional' if self.provisional else ''}.")
            if self.judged_on == "tuning":
                lines.append("The same cases chose the depth, so the result is optimistic.")
            if self.folds > 1:
                lines.append(
                    f"With {self.folds} folds, cases that chose the depth in one fold confirm it in another, so the "
                    "result is optimistic."
                )
            if not self.trained_on:
                lines.append(
                    "The smaller networks were not trained on. Training may show that fewer blocks are enough."
                )
        failed = [each for each in self.tried if each.depth > self.depth and each.verdict(self.margin) == "worse"]
        if failed and self.depth < self.full:
            one = failed[0]
            lines.append(
                f"With {one.depth} blocks, which is more, Dice is worse {one.in_words(bracketed=True)}: that training "
                "has failed, so success of a training counts here as much as depth. Several seeds tell them apart."
            )
        if self.also_removed and self.depth < self.full:
            lines.append(self.also_removed)
        if self.noise is not None and not self.reason:
            lines.append(
                f"Noise floor: the full network with another seed is at {self.noise.in_words()}. No smaller change is "
                "about depth."
            )
        return lines

    def in_words(self) -> str:
        """Return headline and notes as one text."""
        return " ".join([self.headline(), *self.notes()])

    def save(self, path: Path) -> None:
        """Write the decision as JSON to `path`."""
        said = {"format": FORMAT, "attention_tells": self.tells, "in_words": self.in_words()}
        write_json(Path(path), {**said, **self.model_dump(mode="json")})

    @classmethod
    def load(cls, path: Path) -> DepthDecision:
        """Read a decision. A user may have changed its depth. Raises WeightsError if the file cannot be used."""
        content = decision_content(Path(path), (FORMAT,))
        for key in ("format", "attention_tells", "in_words"):
            content.pop(key, None)
        try:
            decision = cls.model_validate(content)
        except ValidationError as error:
            raise WeightsError(f"the decision {path} cannot be read: {explain(error, cls)}") from error
        if not 0 <= decision.depth <= decision.full:
            raise WeightsError(
                f"the decision {path} has depth {decision.depth}: it must be a whole number from 0 to {decision.full}"
            )
        return decision


def confirm(
    decision: DepthDecision,
    held_out: Mapping[int, pd.DataFrame],
    chosen: int,
    margins: Sequence[float],
    shallowest: int,
) -> DepthDecision:
    """Return `decision` with its verdict, from the per-case tables of every trained depth on held-out cases.

    The chosen depth is tested once. Then the next smaller trained depth is tested for "worse". If a still smaller one
    is "not worse", "needs" is not said.
    """
    full = held_out[decision.full]
    if reason := segments_nothing(full, "held-out cases"):
        return decision.model_copy(update={"reason": reason, "verdict": "not shown", "depth": decision.full})

    results = {
        depth: DepthResult.of(depth, change(full, table), margins)
        for depth, table in held_out.items()
        if depth <= chosen and depth != decision.full
    }
    confirmed = results.pop(chosen, None)
    smaller = results[max(results)] if results else None
    decision = decision.model_copy(update={"confirmed": confirmed, "smaller": smaller})
    margin = decision.margin
    if confirmed is None or confirmed.verdict(margin) != "not worse":
        return decision.model_copy(update={"verdict": "not shown", "depth": decision.full})
    next_is_worse = smaller is not None and smaller.depth == chosen - 1 and smaller.verdict(margin) == "worse"
    fewer_hold = any(each.verdict(margin) == "not worse" for each in results.values())
    verdict: Verdict = "enough"
    if chosen == 0:
        verdict = "nothing"
    elif decision.trained_on and next_is_worse and not fewer_hold:
        verdict = "needs"
    return decision.model_copy(update={"verdict": verdict, "depth": chosen, "smallest_form": chosen <= shallowest})


def removed_scales(kind: type[Network], decoder: DecoderForm) -> str:
    """Say what a cut removes beside blocks: the decoder's scales whose block is gone; empty if nothing."""
    if not kind.feeds_scales or decoder == "whole":
        return ""
    return "The cut also removes the scales of the decoder whose block is gone (decoder: whole keeps them)."


def save_decision(decision: DepthDecision, folder: Path) -> Path:
    """Write decision.json into `folder`, and return its path.

    A depth that a user set by hand in the file stays. A decision.json of version 0.1.0 becomes attention_rule.json.
    """
    path = folder / DECISION
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        if decision_content(path, FORMATS)["format"] == RULE_FORMAT:
            if not (folder / RULE_FILE).is_file():
                path.rename(folder / RULE_FILE)
        elif (before := DepthDecision.load(path)).set_by_hand:
            decision = decision.model_copy(update={"depth": before.depth})
    decision.save(path)
    return path


def read_depth(path: Path) -> tuple[int, int]:
    """Return the depth to keep and the number of blocks of the full network, from a decision of any format.

    Raises WeightsError if the file cannot be used.
    """
    if decision_content(Path(path), FORMATS)["format"] == RULE_FORMAT:
        rule = Decision.load(Path(path))
        return rule.depth, len(rule.blocks)
    decision = DepthDecision.load(Path(path))
    return decision.depth, decision.full
