"""Control phantom: chains of links (associative recall), to show when a network needs several blocks.

Each slice is an independent scene of patches of 16 × 16 pixels, of which some are in use. A patch in use shows its own
symbol (left half, a random texture), the symbol of another patch (right half), a bit (the brightness of its frame) and
a number of links (the thickness of its frame). The links form one random cycle through all patches in use. The class
of a patch is the bit at the end of its chain, together with the number of links: the bit of the patch whose symbol it
shows for one link, the bit of the patch after that for two, and so on.

Symbols are drawn anew for every scene, so there is no table to learn. A block can follow one link. Two blocks can
follow up to three, because the first one doubles the paths. So the planted depth is ⌈log2(links + 1)⌉ (Sanford, Hsu
and Telgarsky 2024 on k-hop tasks).
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np

from vitrim.data.phantoms.shapes import Drawing, Grid
from vitrim.errors import ConfigurationError

CLASSES = tuple(f"bit {bit} after {links} link{'s' if links > 1 else ''}" for links in (1, 2, 3) for bit in (0, 1))
MODALITY = "phantom"
SHAPE = (96, 96, 8)
EXTENT = (96.0, 96.0, 8.0)
NOISE = 3.0

PATCH = 16
PLACES = 16
APART = 3.0
"""Smallest distance between two linked patches, in patches; in grids of fewer than 6 × 6 patches, half a side."""
FRAME = 3
"""Thickest frame in pixels, for three links; what lies inside shows the two symbols."""
DARK, BRIGHT = 0.0, 200.0
"""Intensities of the textures. They are stronger than the frame, so that a network learns to compare symbols soon."""
CELLS = 5
"""Rows and columns of cells in a symbol; each cell is dark or bright."""
BITS = (50.0, 150.0)
"""Intensity of the frame for bit 0 and bit 1."""
BACKGROUND = 100.0


def planted_depth(links: int) -> int:
    """Return how many blocks up to `links` links need: ⌈log2(links + 1)⌉."""
    return ceil(log2(links + 1))


def apart(rows: int, columns: int) -> float:
    """Return the smallest distance between two linked patches, in patches, in a grid of this size."""
    return min(APART, min(rows, columns) / 2)


def gap(shape: tuple[int, ...]) -> int:
    """Return the smallest distance in pixels between the edges of two linked patches along their longer axis.

    `shape` begins with the rows and columns of a slice.
    """
    return int(PATCH * (apart(shape[0] // PATCH, shape[1] // PATCH) / np.sqrt(2) - 1))


def draw(rng: np.random.Generator, grid: Grid, hops: int = 1, places: int = PLACES, balanced: bool = True) -> Drawing:
    """Draw one stack of scenes with 1 to `hops` links.

    With `balanced`, half of the bits of a scene are 1, and each number of links occurs equally often. Then a patch's
    own bit tells something about its class: of 16 bits, 8 of the 15 others differ from it. Networks learn this at once,
    and what they need much later or not at all. Without `balanced`, bits and links are drawn independently. Counting
    all bits of a scene then tells something, and a network that counts goes on to look.

    Raises ConfigurationError if the slices are not made of whole patches, or if `hops` or `places` is not possible.
    """
    rows, columns = (n // PATCH for n in grid.shape[:2])
    if grid.shape[0] % PATCH or grid.shape[1] % PATCH:
        raise ConfigurationError(f"chain needs slices of whole patches of {PATCH} pixels, not {grid.shape[:2]}")
    if not 1 <= hops <= len(CLASSES) // 2:
        raise ConfigurationError(f"chain has 1 to {len(CLASSES) // 2} links: hops cannot be {hops}")
    if not hops + 2 <= places <= rows * columns:
        raise ConfigurationError(
            f"chain has {rows * columns} patches: with {hops} links, places can be {hops + 2} to {rows * columns}"
        )
    image = np.full(grid.shape, BACKGROUND, np.float32)
    label = np.zeros(grid.shape, np.uint8)
    for number in range(grid.shape[2]):
        cycle = _cycle(rng, rows, columns, places)
        bits, links = _bits(rng, places, balanced), _links(rng, places, hops, balanced)
        side = PATCH - 2 * FRAME
        cells = rng.integers(0, 2, size=(places, CELLS, CELLS))
        symbols = cells.repeat(side // 2 // CELLS, axis=1).repeat(side // CELLS, axis=2)
        for place, patch in enumerate(cycle):
            x, y = (PATCH * int(n) for n in divmod(patch, columns))
            inside = np.concatenate([symbols[place], symbols[(place + 1) % places]])
            image[x : x + PATCH, y : y + PATCH, number] = _patch(inside, bits[place], links[place])
            end = bits[(place + links[place]) % places]
            label[x : x + PATCH, y : y + PATCH, number] = 1 + 2 * (links[place] - 1) + end
    return Drawing(image, label)


def _patch(inside: np.ndarray, bit: int, links: int) -> np.ndarray:
    """Return the intensities (16, 16) of a patch: textures inside, and a frame of `links` pixels."""
    patch = np.full((PATCH, PATCH), BACKGROUND, np.float32)
    edge = FRAME - links
    patch[edge : PATCH - edge, edge : PATCH - edge] = BITS[bit]
    patch[FRAME:-FRAME, FRAME:-FRAME] = np.where(inside, BRIGHT, DARK)
    return patch


def _bits(rng: np.random.Generator, places: int, balanced: bool) -> np.ndarray:
    return rng.permutation(np.arange(places) % 2) if balanced else rng.integers(0, 2, size=places)


def _links(rng: np.random.Generator, places: int, hops: int, balanced: bool) -> np.ndarray:
    return rng.permutation(1 + np.arange(places) % hops) if balanced else rng.integers(1, hops + 1, size=places)


def _cycle(rng: np.random.Generator, rows: int, columns: int, places: int) -> list[int]:
    """Return `places` patches in the order of the cycle; linked ones are at least `apart` patches apart."""
    least = apart(rows, columns)
    for _ in range(1000):
        free = [int(n) for n in rng.permutation(rows * columns)[:places]]
        cycle = [free.pop()]
        while free:
            far = [n for n in free if _far(cycle[-1], n, columns, least)]
            if not far:
                break
            cycle.append(far[int(rng.integers(len(far)))])
            free.remove(cycle[-1])
        if not free and _far(cycle[-1], cycle[0], columns, least):
            return cycle
    raise ConfigurationError(
        f"chain: no cycle through {places} of {rows * columns} patches has links of {least:g} patches or more"
    )


def _far(one: int, other: int, columns: int, least: float) -> bool:
    (a, b), (c, d) = divmod(one, columns), divmod(other, columns)
    return float(np.hypot(a - c, b - d)) >= least
