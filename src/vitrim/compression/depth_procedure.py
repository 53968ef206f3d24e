"""The procedure that decides a depth: look, propose, try, confirm. docs/depth.md explains it.

This file holds its order alone. Who calls it trains and evaluates the networks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from vitrim.metrics.statistics import network_dice

TRIES = 4
"""Default of the largest number of networks that are trained to find the depth, for each network and seed."""
DICE_FLOOR = 0.1
"""A full network with a smaller average Dice segments nothing, and no depth can be compared with it."""


def segments_nothing(full: pd.DataFrame, cases: str) -> str:
    """Return why no depth can be compared with a full network of this per-case table; empty if one can.

    With several seeds or folds, each of its trainings must segment something: the mean hides one that has failed.
    `cases` says which cases the table is of.
    """
    runs = [name for name in ("seed", "fold") if name in full and full[name].nunique() > 1]
    for key, table in full.groupby(runs, sort=False) if runs else [((), full)]:
        dice = network_dice(table)
        if not dice >= DICE_FLOOR:
            which = " and ".join(f"{name} {value}" for name, value in zip(runs, key, strict=True))
            of = f" with {which}" if which else ""
            return f"the average Dice of the full network{of} is {dice:.3f} on {cases}, so it segments almost nothing"
    return ""


def next_depth(
    verdicts: Mapping[int, str], proposed: int, shallowest: int, full: int, tries: int = TRIES
) -> int | None:
    """Return the next depth to try; None if the search is over.

    The proposed depth comes first. While none is "not worse", the next larger one follows. From the smallest depth
    that is "not worse" on, the middle between it and the largest smaller depth that is not is tried, until they are
    neighbours. The full network counts as "not worse", so a proposal of all blocks begins in the middle. Depths that
    were trained for another reason count too.

    Args:
        verdicts: verdict of every depth that was tried, on tuning cases.
        proposed: depth that a rule proposes.
        shallowest: smallest depth of this kind of network.
        full: number of blocks of the full network.
        tries: how many more depths may be trained.
    """
    if tries < 1:
        return None
    good = min((depth for depth, verdict in verdicts.items() if verdict == "not worse"), default=full)
    below = max((depth for depth in verdicts if depth < good), default=shallowest - 1)
    if good == full and proposed < full and below >= proposed:
        return next((depth for depth in range(proposed, full) if depth not in verdicts), None)
    if below < proposed < good:
        return proposed
    return (below + good) // 2 if good - below > 1 else None


def chosen_depth(verdicts: Mapping[int, str], full: int) -> int:
    """Return the depth that the search found: the smallest that is "not worse"; without any such depth, the full one.

    A deeper network that is worse does not count against it: then the training of that one has failed.
    """
    return min((depth for depth, verdict in verdicts.items() if verdict == "not worse"), default=full)


def shown_depth(decided: int | None, smaller: Collection[int]) -> int | None:
    """Return the depth to show beside the full network: the decided one, else the smallest that was trained.

    `smaller` are the trained depths below the full one. None if there are none.
    """
    return decided if decided in smaller else min(smaller, default=None)
