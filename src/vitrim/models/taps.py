"""Which blocks feed the decoder, in a full network and in a truncated one."""

from __future__ import annotations

REDUCTIONS = (2, 4, 8, 16)
"""Scales that the four taps feed, from the first tap to the last: 2 is half the image's size."""


def kept_taps(taps: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Taps of a network with `depth` blocks, from those of the full one: the first at or beyond `depth` moves to it.

    Later ones are gone: (3, 6, 9, 12) at depth 7 becomes (3, 6, 7), the 7 in the place of the 9.
    """
    return (*(tap for tap in taps if tap < depth), depth)
