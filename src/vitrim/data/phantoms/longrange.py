"""Control phantom: scenes that need distant context, to show when a network needs attention or depth.

Each slice is an independent scene on a ring of places (12 by default). Some places hold a disc; all discs look alike.
The mark at a disc's point-symmetric place, a plus or a cross, gives the disc's class. With `hops` of 2 or more, that
place holds a needle instead. The needle's direction is the direction from the centre of the image to the next place.
That place holds another needle, and so on; the last place holds the plus or the cross.

A `balanced` scene has as many discs of one class as of the other, and as many pluses as crosses. Counting all marks
therefore gives no information, but a network that sees all marks except one can infer that one. In a scene that is not
balanced, every mark and every needle is drawn independently. What is near a disc then says nothing about the mark
opposite, so a network without a transformer cannot guess it. Counting all marks gives some information in such a scene,
and with needles, counting the nearby marks does too.
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
"""Radius of a disc, relative to half the shorter side of a slice."""
MARK = 0.12
"""Half the size of a mark, relative to half the shorter side of a slice."""

Needle = int
"""A mark as a number: a needle is the number of the place that it points to, a plus is -1, a cross is -2."""


def distance(shape: tuple[int, ...], places: int = PLACES) -> float:
    """Return the smallest distance in pixels between a disc and its mark, over all places.

    The distance of one place is the larger of the distances along rows and along columns. `shape` ends with the rows
    and columns of a slice. A network whose receptive field reaches less far than this along rows and along columns does
    not see the mark from any pixel of the disc. At 45°, the places are only 0.7 of the ring's diameter apart along
    either axis.
    """
    angles = 2 * np.pi * np.arange(places) / places
    across = 2 * RING * np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles))).min()
    return float((across - DISC - MARK) * min(shape[-2:]) / 2)


def draw(rng: np.random.Generator, grid: Grid, hops: int = 1, places: int = PLACES, balanced: bool = True) -> Drawing:
    """Draw one stack of scenes.

    Raises ConfigurationError if `places` is odd, less than 4, or too small for `hops`.
    """
    most = places // 2 - balanced  # without balance, a single disc is possible
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
    """Return the class of the disc at each place with a disc, and the mark at every other place."""
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
    needles = 0 if hops == 1 else len(free) // 4 * 2  # even, so that an even number of places is left
    for n, place in enumerate(free):
        marks[place] = int(rng.integers(places)) if n < needles else -(1 + n % 2)
    return discs, marks


def _independent(
    rng: np.random.Generator, hops: int, taken: list[int], opposite: list[int], free: list[int]
) -> tuple[dict[int, int], dict[int, Needle]]:
    """Return a scene in which every mark and every needle is drawn independently, so no mark depends on another.

    The free places are divided into `hops` - 1 shares. Needles opposite the discs point to places of the first share,
    needles of each share point to places of the next one, and the last share holds the plus and cross marks. With one
    hop there are no needles: all places without a disc hold marks.
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
    """Return positions (2, X, Y) relative to a place on the ring, in units of half the shorter side."""
    angle = 2 * np.pi * place / places
    return plane - RING * np.array([np.cos(angle), np.sin(angle)], np.float32)[:, None, None]


def _shape_of(offset: np.ndarray, mark: Needle, places: int) -> np.ndarray:
    """Return the mask (X, Y) of a mark: a plus, a cross, or a needle with a thick head."""
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
