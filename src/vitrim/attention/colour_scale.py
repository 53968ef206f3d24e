"""How attention looks, in every picture of it: one colour map, and one scale that ends at a multiple of uniform."""

from __future__ import annotations

COLORMAP = "viridis"
"""Colour map of matplotlib. Its lightness rises evenly, also in grey and for colour-blind readers."""
TIMES_UNIFORM = 4
"""The scale runs from 0 to so many times uniform attention; more is shown in the last colour."""


def uniform_weight(patches: int) -> float:
    """Return the weight that each patch gets if attention is uniform, 1 / N."""
    return 1 / patches


def scale_top(patches: int) -> float:
    """Return the upper end of the colour scale of attention over N patches."""
    return TIMES_UNIFORM * uniform_weight(patches)
