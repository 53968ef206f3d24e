"""The procedure that decides a depth: look, propose, try, confirm. docs/depth.md explains it.

This file holds its order alone. Who calls it trains and evaluates the networks.
"""

from __future__ import annotations

from collections.abc import Mapping

TRIES = 4
"""Default of the largest number of networks that are trained to find the depth, for each network and seed."""
DICE_FLOOR = 0.1
"""A full network with a smaller average Dice segments nothing, and no depth can be compared with it."""


def segments_nothing(dice: float) -> str:
    """Return why no depth can be compared with a full network of this average Dice; empty if one can."""
    if dice >= DICE_FLOOR:
        return ""
    return f"the average Dice of the full network is {dice:.3f}, so it segments almost nothing"


def next_depth(
    verdicts: Mapping[int, str], proposed: int, shallowest: int, full: int, tries: int = TRIES
) -> int | None:
    """Return the next depth to try; None if the search is over.

    The proposed depth comes first. If it is "not worse", the next smaller one follows, until one is not "not worse" or
    there is none. If it is "worse" or "undecided", the next larger one follows, until one is "not worse".

    Args:
        verdicts: verdict of every depth that was tried, on tuning cases.
        proposed: depth that a rule proposes.
        shallowest: smallest depth of this kind of network.
        full: number of blocks of the full network.
        tries: how many more depths may be trained.
    """
    if proposed >= full or tries < 1:
        return None
    depth, down = proposed, verdicts.get(proposed) == "not worse"
    while depth in verdicts and (verdicts[depth] == "not worse") == down:
        depth += -1 if down else 1
    return depth if depth not in verdicts and shallowest <= depth < full else None


def chosen_depth(verdicts: Mapping[int, str], proposed: int, full: int) -> int:
    """Return the depth that the search found: the smallest of an unbroken row of depths that are "not worse".

    The row begins at the proposed depth or above it. If there is none, for example because the proposed depth was not
    trained, the row of all trained depths from deep to shallow counts. Without any such depth, the full one.
    """
    depth = proposed
    while depth in verdicts and verdicts[depth] != "not worse":
        depth += 1
    if verdicts.get(depth) == "not worse":
        while verdicts.get(depth - 1) == "not worse":
            depth -= 1
        return depth
    chosen = full
    for depth in sorted(verdicts, reverse=True):
        if verdicts[depth] != "not worse":
            break
        chosen = depth
    return chosen
