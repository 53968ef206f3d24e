"""Scenes that cannot be segmented by looking near by: the control that shows when attention, or depth, is needed.

Each slice is a scene of its own, on a ring of places (twelve, or as many as asked for). At some of them are discs, all
alike; the class of a disc is told by the mark at its point-symmetric place, a plus or a cross. With `hops` of 2 or more
the mark opposite is a needle instead: it points, as seen from the centre of the image, to the place where to look next,
and so on; the last place has the plus or the cross.

`balanced` scenes have as many of the one as of the other, among the discs and among all marks, so that counting all
marks tells nothing; but who sees all marks but one can tell that one. In scenes that are not balanced every mark and
needle is drawn by itself: what can be seen from a disc says nothing about the mark opposite, which is what a network
without a transformer must not be able to guess. Counting all marks, or with needles the marks near by, tells something.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vitrim.data.phantoms.shapes import Drawing, Grid, blur
from vitrim.errors import ConfigurationError

CLASSES = ("disc of a plus", "disc of a cross")
MODALITY = "phantom"
SHAPE = (128, 128, 8)
EXTENT = (128.0, 128.0, 8.0)
NOISE = 6.0

PLACES = 12
RING = 0.78
"""Radius of the ring, relative to half the shorter side of a slice."""
DISC = 0.13
MARK = 0.12
"""Half size of discs and marks, relative to half the shorter side."""

Needle = int
"""A place on the ring; a negative number is a plus (-1) or a cross (-2)."""


def distance(shape: tuple[int, ...], places: int = PLACES) -> float:
    """Pixels from any pixel of a disc to its mark at least, along rows or columns, whichever are more.

    For slices of rows × columns (the last two of `shape`). A network that sees less far than this along both sees
    nothing of the mark. Places at 45° count: there the ring's diameter is 0.7 of it along either.
    """
    angles = 2 * np.pi * np.arange(places) / places
    across = 2 * RING * np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles))).min()
    return float((across - DISC - MARK) * min(shape[-2:]) / 2)


def draw(rng: np.random.Generator, grid: Grid, hops: int = 1, places: int = PLACES, balanced: bool = True) -> Drawing:
    """Draw one stack of scenes. InputError if there are too few places for that many hops, or an odd number."""
    most = places // 2 - balanced  # where nothing has to be balanced, there can be a single disc
    if places % 2 or places < 4:
        raise ConfigurationError(f"longrange needs an even number of places, 4 or more, not {places}")
    if not 1 <= hops <= most:
        raise ConfigurationError(f"longrange has {places} places: hops can be 1 to {most}, not {hops}")
    image = 100 + 8 * grid.noise(rng, 12.0)
    label = np.zeros(grid.shape, np.uint8)
    half = min(grid.shape[0] * grid.spacing[0], grid.shape[1] * grid.spacing[1]) / 2
    plane = grid.points[:2, :, :, 0] / np.float32(half)
    for number in range(grid.shape[2]):
        discs, marks = _scene(rng, hops, places, balanced)
        for place, index in discs.items():
            mask = np.hypot(*_from(plane, place, places)) < DISC
            image[mask, number], label[mask, number] = 150, index
        for place, mark in marks.items():
            image[_shape_of(_from(plane, place, places), mark, places), number] = 200
    sigma = 0.6
    return Drawing(blur(image.astype(np.float32), (sigma, sigma, 0)), label)


def _scene(
    rng: np.random.Generator, hops: int, places: int = PLACES, balanced: bool = True
) -> tuple[dict[int, int], dict[int, Needle]]:
    """Class of the disc at each place that has one, and the mark at every other place."""
    count = 4 if 4 * (hops + 1) <= places else 2 if 2 * (hops + 1) <= places else 1
    sides = rng.permutation(places // 2)[:count]
    taken = [int(side) + places // 2 * int(rng.integers(2)) for side in sides]
    opposite = [(place + places // 2) % places for place in taken]
    free = [int(n) for n in rng.permutation(places) if n not in taken and n not in opposite]
    if not balanced:
        return _independent(rng, hops, taken, opposite, free)
    discs = {place: 1 + n % 2 for n, place in enumerate(taken)}
    marks: dict[int, Needle] = {}
    for place, here in zip(taken, opposite, strict=True):
        for _ in range(hops - 1):
            marks[here] = free.pop()
            here = marks[here]
        marks[here] = -discs[place]
    needles = 0 if hops == 1 else len(free) // 4 * 2  # an even number is left
    for n, place in enumerate(free):
        marks[place] = int(rng.integers(places)) if n < needles else -(1 + n % 2)
    return discs, marks


def _independent(
    rng: np.random.Generator, hops: int, taken: list[int], opposite: list[int], free: list[int]
) -> tuple[dict[int, int], dict[int, Needle]]:
    """A scene in which no mark says anything about another: every mark and every needle is drawn by itself.

    Needles point from the places opposite the discs into a first share of the free places, from there into the next
    and so on, as many times as there are hops to go; the last share has the plus and cross marks.
    """
    shares = [opposite, *([int(n) for n in share] for share in np.array_split(free, hops - 1))] if hops > 1 else []
    marks: dict[int, Needle] = {
        place: following[int(rng.integers(len(following)))] for share, following in pairwise(shares) for place in share
    }
    ends = shares[-1] if shares else [*opposite, *free]
    marks |= {place: -(1 + int(rng.integers(2))) for place in ends}
    discs = {}
    for place, here in zip(taken, opposite, strict=True):
        while marks[here] >= 0:
            here = marks[here]
        discs[place] = -marks[here]
    return discs, marks


def _from(plane: np.ndarray, place: int, places: int) -> np.ndarray:
    """Position relative to a place on the ring, in halves of the shorter side (2, X, Y)."""
    angle = 2 * np.pi * place / places
    return plane - RING * np.array([np.cos(angle), np.sin(angle)], np.float32)[:, None, None]


def _shape_of(offset: np.ndarray, mark: Needle, places: int) -> np.ndarray:
    """Where a mark is bright (X, Y): a plus, a cross, or a needle with a thick head."""
    thin = 0.26 * MARK
    x, y = offset
    if mark == -2:
        x, y = (x + y) / np.sqrt(2), (y - x) / np.sqrt(2)
    if mark < 0:
        return ((np.abs(x) < thin) & (np.abs(y) < MARK)) | ((np.abs(y) < thin) & (np.abs(x) < MARK))
    angle = 2 * np.pi * mark / places
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    shaft = (np.abs(across) < thin) & (np.abs(along) < MARK)
    return shaft | (np.hypot(along - 0.6 * MARK, across) < 2 * thin)
