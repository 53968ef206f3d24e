"""Decides from the attention of a network how many blocks it needs."""

from __future__ import annotations

import numpy as np

from vitrim.arguments import positive_number
from vitrim.attention.decision import (
    FALLS_BACK,
    FEW_CASES,
    NO_INTERVAL,
    NOT_CERTAIN,
    NOT_REACHED,
    UNIFORM,
    BlockValue,
    Decision,
    Reached,
    reached,
    reaches,
)
from vitrim.attention.measures import MEASURES, checked_measures
from vitrim.attention.profile import AttentionProfile
from vitrim.errors import InputError
from vitrim.metrics.intervals import MINIMUM_CASES, RESAMPLES, TRUSTED_CASES, mean_interval


def decide_depth(
    profile: AttentionProfile,
    *,
    measure: str = "globality",
    head: int | str = "mean",
    threshold: float = 2 / 3,
    untrained: AttentionProfile | None = None,
    seed: int = 0,
) -> Decision:
    """Decide the depth: the first block whose measure reaches the threshold. All later blocks are discarded.

    Each block has a 95 % percentile bootstrap interval over cases. Let a be the first block whose upper end reaches the
    threshold, and b the first block whose lower end reaches it. The depth is b, and its interval is a to b. Measures
    that fall when attention becomes global (self share, neighbourhood share, proximity correlation) reach the threshold
    from above, and the two ends change roles. With fewer than 5 cases there is no interval; the mean decides. If no
    block reaches the threshold, all blocks are kept. docs/definitions.md gives the details.

    Args:
        profile: profile of training cases only.
        measure: name of the deciding measure.
        head: "mean" for the head-averaged attention, "max" for the head of each block whose mean over cases is the most
            global, or the number of a head, from 1.
        threshold: value that the measure must reach, in its unit.
        untrained: profile of the same network before training, for comparison.
        seed: seed of the bootstrap.

    Raises:
        InputError: if the measure or the head is unknown, if the threshold is no finite number above 0, if the profile
            does not hold the measure for every case, or if the untrained network has another number of blocks.

    Example:
        >>> import torch, vitrim
        >>> network = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=2)
        >>> decision = vitrim.decide_depth(vitrim.profile_attention(network, torch.randn(6, 3, 32, 32)))
        >>> decision.depth, decision.measure
        (1, 'globality')
    """
    falls = MEASURES[checked_measures([measure])[0]].falls
    threshold = positive_number(threshold, "threshold")
    values = _by_head(profile, measure, head)  # (cases, blocks, heads in question)
    entropies = _entropies(profile, measure, head)
    before: np.ndarray | None = None
    if untrained is not None:
        if untrained.blocks != profile.blocks:
            raise InputError(f"the untrained network has {untrained.blocks} blocks, the trained one {profile.blocks}")
        before = _most_global(_by_head(untrained, measure, head).mean(axis=0), falls)
    before_entropies = _entropies(untrained, measure, head)
    least = _least_entropy(profile) if head == "mean" else None
    point = _most_global(values.mean(axis=0), falls)
    ends = mean_interval(values, seed=seed, summary=lambda means: _most_global(means, falls))
    blocks = tuple(
        BlockValue(
            block=b + 1,
            value=float(point[b]),
            low=None if ends is None else float(ends[0][b]),
            high=None if ends is None else float(ends[1][b]),
            entropy=_at(entropies, b),
            untrained_value=_at(before, b),
            untrained_entropy=_at(before_entropies, b),
            least_entropy=_at(least, b),
        )
        for b in range(profile.blocks)
    )
    found = reached(blocks, threshold, falls)
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
        resamples=RESAMPLES,
        seed=seed,
    )


def _by_head(profile: AttentionProfile, measure: str, head: int | str) -> np.ndarray:
    """Values (cases, blocks, 1), or (cases, blocks, heads) for "max". NaN for heads that a block does not have."""
    heads = [head] if head != "max" else range(1, max(profile.heads) + 1)
    values = np.stack([profile.of(measure, h) for h in heads], axis=-1)
    if np.isnan(values).all(axis=-1).any():
        raise InputError(f"{measure} is not known for every case and block of head {head!r}: it cannot decide")
    return values


def _most_global(means: np.ndarray, falls: bool) -> np.ndarray:
    """Value of the most global head: (..., blocks, heads) to (..., blocks)."""
    return np.nanmin(means, axis=-1) if falls else np.nanmax(means, axis=-1)


def _entropies(profile: AttentionProfile | None, measure: str, head: int | str) -> np.ndarray | None:
    """Entropy of the deciding attention by block, as mean over cases; None if it was not measured."""
    if profile is None or "entropy" not in profile.measures:
        return None
    deciding = _by_head(profile, measure, head).mean(axis=0)  # (blocks, heads)
    chosen = np.nanargmin(deciding, axis=-1) if MEASURES[measure].falls else np.nanargmax(deciding, axis=-1)
    entropies = _by_head(profile, "entropy", head).mean(axis=0)
    return np.take_along_axis(entropies, chosen[:, None], axis=-1)[:, 0]


def _least_entropy(profile: AttentionProfile) -> np.ndarray | None:
    """Smallest entropy of a head of each block, as mean over cases; None if entropy was not measured."""
    if "entropy" not in profile.measures:
        return None
    heads = np.stack([profile.of("entropy", h) for h in range(1, max(profile.heads) + 1)], axis=-1)
    return np.nanmin(heads.mean(axis=0), axis=-1)


def _at(values: np.ndarray | None, block: int) -> float | None:
    return None if values is None else float(values[block])


def _flags(
    blocks: tuple[BlockValue, ...], found: Reached, threshold: float, falls: bool, cases: int
) -> tuple[str, ...]:
    flags = []
    if any(block.uniform for block in blocks):
        flags.append(UNIFORM)
    if not found.reached:
        possible = any(reaches(block, threshold, falls, surely=False) for block in blocks)
        flags.append(NOT_CERTAIN if possible else NOT_REACHED)
    elif not all(reaches(block, threshold, falls, surely=False) for block in blocks[found.depth :]):
        flags.append(FALLS_BACK)
    if cases < MINIMUM_CASES:
        flags.append(NO_INTERVAL)
    elif cases < TRUSTED_CASES:
        flags.append(FEW_CASES)
    return tuple(flags)
