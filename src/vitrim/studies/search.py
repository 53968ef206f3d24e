"""The search for the depth of one network of a study, over all its seeds and folds: look, propose, try, confirm."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import pandas as pd

from vitrim.compression.depth_decision import DepthDecision, DepthResult, confirm, removed_scales, save_decision
from vitrim.compression.depth_procedure import chosen_depth, next_depth, segments_nothing
from vitrim.compression.depth_rules import (
    RULES,
    Evidence,
    answers_of,
    by_accuracy,
    changed_by_training,
    stored_evidence,
    untrained_answers,
)
from vitrim.compression.exchange_curve import ExchangeCurve
from vitrim.config.names import NETWORK_TITLES, NetworkName
from vitrim.metrics.statistics import VERDICT_CASES, Change, change
from vitrim.models.factory import NETWORKS
from vitrim.studies.jobs import Job, Outcome
from vitrim.studies.plan import Plan, RunKey, balanced
from vitrim.studies.result_tables import concatenated
from vitrim.studies.trial import Result, finished


@dataclass
class NetworkSearch:
    """Says which networks are trained next, and decides the depth when all that is needed was trained."""

    plan: Plan
    network: NetworkName
    out: Path
    waiting: dict[str, Job] = field(default_factory=dict)
    """Jobs of the current step whose outcome is not known yet, by key of their trial."""
    run_keys: list[RunKey] = field(default_factory=list)
    """Run keys whose full network was trained."""
    proposed: DepthDecision | None = None
    trained: list[int] = field(default_factory=list)
    """Depths that the search asked for, in this order."""

    @property
    def full(self) -> int:
        """Number of transformer blocks of the full network."""
        return self.plan.study.full_depth

    def start(self) -> list[Job]:
        """Return the jobs of all full networks. The noise floor is measured in the same step."""
        plan = self.plan
        own = [key for key in plan.run_keys if key.network == self.network]
        jobs = [Job(plan.full(key), plan.attention_folder(self.out, key)) for key in own]
        if plan.study.noise_floor:
            jobs.append(Job(plan.noise(own[0])))
        if plan.study.rule == "nested":
            jobs += [Job(plan.nested(key)) for key in own]
        self.waiting = {job.trial.key: job for job in jobs}
        return jobs

    def after(self, job: Job, outcome: Outcome) -> list[Job]:
        """Return the jobs that follow from the outcome of a job; none if others must be waited for."""
        following: list[Job] = []
        run_key = self.plan.run_key_of(job.trial)
        if job.attention_folder is not None and outcome.failure is None and run_key is not None:
            self.run_keys.append(run_key)
            following = [Job(self.plan.trial(run_key, depth)) for depth in self.plan.fixed(self.network)]
            self.waiting |= {each.trial.key: each for each in following}
        if self.waiting.pop(job.trial.key, None) is None or self.waiting or not self.run_keys:
            return following
        if self.proposed is None:
            self.run_keys = balanced(sorted(self.run_keys, key=self.plan.run_keys.index))
            self.proposed = self._proposal()
        depth = self._next()
        if depth is None:
            return []
        self.trained.append(depth)
        jobs = [Job(self.plan.trial(key, depth)) for key in self.run_keys]
        self.waiting = {each.trial.key: each for each in jobs}
        return jobs

    def finish(self) -> DepthDecision | None:
        """Decide the depth from all that was trained, and write decision.json. None if no full network was trained."""
        if self.proposed is None:
            return None
        decision = self.proposed
        tried, everywhere, margins = self._verdicts(), self._everywhere(), self.plan.study.margins
        if self._can_try():
            chosen = chosen_depth(tried, self.full)
        else:
            chosen = decision.proposed if decision.proposed in everywhere else self.full
        differences = {depth: self._tuning_change(depth) for depth in sorted(tried, reverse=True)}
        results = [
            DepthResult.of(depth, difference, margins)
            for depth, difference in differences.items()
            if isfinite(difference.percent)
        ]
        rules = {**decision.rules, "accuracy": self._by_accuracy(everywhere)}
        found = {"tried": tuple(results), "order": tuple(self.trained), "noise": self._noise(), "rules": rules}
        decision = decision.model_copy(update=found)
        held_out = {depth: self._table(depth) for depth in everywhere}
        if not decision.reason:
            decision = confirm(decision, held_out, chosen, margins, NETWORKS[self.network].shallowest)
        first = self.plan.run_keys[0]
        folder = self.plan.attention_folder(self.out, RunKey(self.network, first.seed, first.fold))
        return DepthDecision.load(save_decision(decision, folder))

    def _proposal(self) -> DepthDecision:
        """Look: every rule for the trained network, and for the one before training. The study's rule proposes."""
        study, margin = self.plan.study, self.plan.study.margins[0]
        evidence = {
            key: found
            for key in self.run_keys
            if (found := stored_evidence(self.plan.attention_folder(self.out, key), margin, self._nested(key)))
        }
        curves = [(key.seed, key.fold, each.exchange) for key, each in evidence.items() if each.exchange is not None]
        pooled = ExchangeCurve.joined(curves) if curves else None
        answers = [answers_of(each) for each in evidence.values()]
        rules: dict[str, int | None] = {
            name: max((answer[name] for answer in answers if answer[name] is not None), default=None)  # type: ignore[type-var]
            for name in RULES
        }
        if pooled is not None:
            rules |= {"exchange": pooled.cutoff(margin), "constant": pooled.cutoff(margin, "constant")}
        attention = [each.attention for each in evidence.values() if each.attention is not None]
        untrained = [untrained_answers(each) for each in attention]
        proposes = study.rule if rules[study.rule] is not None else "exchange"
        answer = rules[proposes]
        shallowest = NETWORKS[self.network].shallowest
        split = self.plan.study_data.splits[self.run_keys[0].fold]
        tuning = len(split.tuning) >= VERDICT_CASES
        cases = "tuning cases" if tuning else "training cases"
        reason = "" if pooled is None else segments_nothing(pooled.untouched, cases)
        return DepthDecision(
            network=NETWORK_TITLES[self.network],
            full=self.full,
            depth=self.full,
            verdict="not shown",
            margin=margin,
            proposed=self.full if answer is None or reason else max(answer, shallowest),
            rule=proposes,
            proposed_on="tuning" if tuning else "training",
            rules=rules,
            untrained=dict(untrained[0]) if untrained else {},
            changed_by_training=any(changed_by_training(each) for each in attention),
            folds=len({key.fold for key in self.run_keys}),
            also_removed=removed_scales(NETWORKS[self.network], study.decoder),
            exchange_percent=None if pooled is None else pooled.without_any,
            reason=reason,
        )

    def _nested(self, key: RunKey) -> dict[int, pd.DataFrame] | None:
        """Return the tables of the nested network of a run key; None if the rule is another one or it failed."""
        result = finished(self.plan.nested(key), self.out) if self.plan.study.rule == "nested" else None
        return None if result is None else result.nested

    def _next(self) -> int | None:
        assert self.proposed is not None
        if self.proposed.reason:
            return None
        proposed, tries = self.proposed.proposed, self.plan.study.tries - len(self.trained)
        if self._can_try():
            shallowest = NETWORKS[self.network].shallowest
            depth = next_depth(self._verdicts(), proposed, shallowest, self.full, tries)
        else:  # without verdicts only the proposed depth is trained
            depth = None if proposed in self._everywhere() or tries < 1 else proposed
        return None if depth in self.trained else depth

    def _can_try(self) -> bool:
        splits = self.plan.study_data.splits
        return all(len(splits[key.fold].tuning) >= VERDICT_CASES for key in self.run_keys)

    def _verdicts(self) -> dict[int, str]:
        """Return the verdict of each depth that was trained everywhere, on tuning cases; none without such cases."""
        if not self._can_try():
            return {}
        margin = self.plan.study.margins[0]
        depths = [depth for depth in self._everywhere() if depth < self.full]
        return {depth: self._tuning_change(depth).verdict(margin) for depth in depths}

    def _tuning_change(self, depth: int) -> Change:
        return change(self._table(self.full, tuning=True), self._table(depth, tuning=True))

    def _everywhere(self) -> list[int]:
        """Return the depths that were trained with every seed and fold whose full network was trained."""
        depths = {*self.trained, *self.plan.fixed(self.network), self.full}
        return sorted(depth for depth in depths if all(self._is_there(key, depth) for key in self.run_keys))

    def _is_there(self, key: RunKey, depth: int) -> bool:
        result = self._result(key, depth)
        return result is not None and (not self._can_try() or result.tuning is not None)

    def _result(self, key: RunKey, depth: int) -> Result | None:
        return finished(self.plan.trial(key, depth), self.out)

    def _table(self, depth: int, tuning: bool = False) -> pd.DataFrame:
        """Return the per-case table of a depth over all seeds and folds, on held-out or on tuning cases."""
        results = [result for key in self.run_keys if (result := self._result(key, depth)) is not None]
        table = concatenated(results, tuning=tuning)
        if tuning and table["fold"].nunique() > 1:  # a case that several folds use counts once
            table = table.groupby(["seed", "case", "class"], sort=False, as_index=False).mean(numeric_only=True)
        return table

    def _by_accuracy(self, depths: list[int]) -> int | None:
        """Return what the rule `accuracy` says of the trained depths, on tuning cases."""
        tables = {depth: self._table(depth, tuning=True) for depth in depths} if self._can_try() else {}
        return by_accuracy(Evidence(self.full, self.plan.study.margins[0], tables=tables))

    def _noise(self) -> DepthResult | None:
        """Compare the full network with itself, trained with another seed."""
        plan, first = self.plan, self.run_keys[0]
        other = finished(plan.noise(first), self.out) if plan.study.noise_floor else None
        second = next((key for key in self.run_keys if key.fold == first.fold and key.seed != first.seed), None)
        if other is None and second is not None:
            other = self._result(second, self.full)
        one = self._result(first, self.full)
        if one is None or other is None:
            return None
        difference = change(one.cases, other.cases)
        return DepthResult.of(self.full, difference, plan.study.margins) if isfinite(difference.percent) else None
