"""The procedure that decides a depth: look, propose, try, confirm. docs/depth.md explains it.

This file holds its order alone. Who calls it trains and evaluates the networks.
"""

from __future__ import annotations

from collections.abc import Mapping

TRIES = 4
"""Default of the largest number of networks that are trained to find the depth, for each network and seed."""
DICE_FLOOR = 0.1
"""A full network with a smaller average Dice segments nothing, and no depth can be compared with it."""


def segments_nothing(dice: float, cases: str) -> str:
    """Return why no depth can be compared with a full network of this average Dice on `cases`; empty if one can."""
    if dice >= DICE_FLOOR:
        return ""
    return f"the average Dice of the full network is {dice:.3f} on {cases}, so it segments almost nothing"


def next_depth(
    verdicts: Mapping[int, str], proposed: int, shallowest: int, full: int, tries: int = TRIES
) -> int | None:
    """Return the next depth to try; None if the search is over.

    The proposed depth comes first. If it is "worse" or "undecided", the next larger one follows, until one is "not
    worse". From the smallest depth that is "not worse" on, the next smaller one follows, until one is not "not worse"
    or there is none. Depths that were trained for another reason count too.

    Args:
        verdicts: verdict of every depth that was tried, on tuning cases.
        proposed: depth that a rule proposes.
        shallowest: smallest depth of this kind of network.
        full: number of blocks of the full network.
        tries: how many more depths may be trained.
    """
    if proposed >= full or tries < 1:
        return None
    good = min((depth for depth, verdict in verdicts.items() if verdict == "not worse"), default=full)
    if good <= proposed:
        depth = good - 1
    else:
        depth = next((depth for depth in range(proposed, good) if depth not in verdicts), full)
    return depth if depth not in verdicts and shallowest <= depth < full else None


def chosen_depth(verdicts: Mapping[int, str], full: int) -> int:
    """Return the depth that the search found: the smallest that is "not worse"; without any such depth, the full one.

    A deeper network that is worse does not count against it: then the training of that one has failed.
    """
    return min((depth for depth, verdict in verdicts.items() if verdict == "not worse"), default=full)
