"""Phantom of a skull-stripped T1-weighted brain with cerebrospinal fluid, gray and white matter, as in IBSR 18."""

from __future__ import annotations

import numpy as np

from vitrim.data.phantoms.shapes import Drawing, Grid, blur, ellipsoid, furrows, waves

CLASSES = ("CSF", "gray matter", "white matter")
MODALITY = "MRI"
SHAPE = (256, 128, 256)
"""The second axis counts coronal slices, as in IBSR 18."""
EXTENT = (240.0, 192.0, 240.0)
NOISE = 4.0

CSF, GRAY, WHITE = 1, 2, 3
INTENSITY = {0: 0.0, CSF: 32.0, GRAY: 78.0, WHITE: 108.0}


def draw(rng: np.random.Generator, grid: Grid) -> Drawing:
    """Draw one brain: folded cortex, ventricles, deep gray matter, cerebellum, brain stem."""
    world = grid.scaled(rng.uniform(0.94, 1.06)).warped(rng, 2.0, 50.0)
    label = np.zeros(grid.shape, np.uint8)
    _cerebellum(rng, world, label)
    _cerebrum(rng, world, label)
    _centre(rng, world, label)
    table = np.array([INTENSITY[n] for n in range(4)], np.float32)
    image = table[label]
    image[label > 0] += 3 * grid.noise(rng, 14.0)[label > 0]
    soft = [0.55 / side for side in grid.spacing]
    return Drawing(blur(image, (soft[0], soft[1], soft[2])).clip(0), label)


def _cerebrum(rng: np.random.Generator, world: Grid, label: np.ndarray) -> None:
    """Draw two hemispheres with their temporal lobes; the cortex folds inwards along curved furrows."""
    _, y, z = world.points
    wide, long = rng.uniform(0.96, 1.04, 2)
    centre, radii = np.array([0, 0, 8], np.float32), np.array([68 * wide, 86 * long, 66], np.float32)
    low = np.where(z < 8, np.float32(0.62), np.float32(1))  # flat at the bottom
    hull = ellipsoid(Grid(np.stack([world.points[0], y, 8 + (z - 8) / low]), world.spacing), (0, 0, 8), tuple(radii))
    lobes = np.full(label.shape, np.inf, np.float32)
    for side in (-1, 1):
        lobe = ellipsoid(world, (side * 45 * wide, 2 * long, -30), (21, 42 * long, 20), turn=side * 12)
        lobes = np.minimum(lobes, 1 + (lobe - 1) * 0.33)
    inside = np.minimum(hull, lobes) < 1
    points = world.points[:, inside]
    mine, theirs = (1 - hull[inside]) * 62, (1 - lobes[inside]) * 62
    depth = np.maximum(mine, theirs)
    depth = np.where((theirs > 0) & (mine > 0), np.maximum(depth, np.minimum(mine, theirs) + 2.2), depth)
    # furrows run straight inwards: their pattern depends only on the point of the surface where they start
    start = points - centre[:, None]
    start = start / (np.linalg.norm(start / radii[:, None], axis=0) + 1e-3)
    furrow = furrows(start + 0.4 * (points - start), rng, 22.0)
    reach = 19 + 5 * waves(start, rng, 60.0, 8)
    from_furrow = np.hypot(furrow, (depth - reach).clip(0))
    above = (19 - points[2]).clip(0) * (np.abs(points[1]) < 60)  # the corpus callosum joins the hemispheres
    from_outside = np.minimum(depth, np.minimum(from_furrow, np.hypot(np.abs(points[0]), above)))
    thickness = 3.6 + 0.4 * waves(start, rng, 40.0, 8)
    label[inside] = np.where(from_outside < 0.75, CSF, np.where(from_outside < thickness, GRAY, WHITE))


def _cerebellum(rng: np.random.Generator, world: Grid, label: np.ndarray) -> None:
    """Draw the cerebellum with its fine folds, and the brain stem."""
    out = ellipsoid(world, (0, -52, -44), (50, 30, 25))
    inside = out < 1
    stretched = world.points[:, inside] * np.array([0.35, 0.7, 1.0], np.float32)[:, None]
    leaf = np.abs(waves(stretched, rng, 9.0))
    depth = (1 - out[inside]) * 26
    core = np.hypot(world.points[0][inside] / 2.4, world.points[2][inside] + 42) < 7 + 2 * leaf
    tissue = np.where((leaf < 0.16) & (depth < 9), CSF, np.where(core & (depth > 5), WHITE, GRAY))
    label[inside] = np.where(depth < 0.6, CSF, tissue)
    stem = ellipsoid(world, (0, -22, -52), (13, 12, 40), power=2.5)
    label[(stem < 1) & (world.points[2] > -78)] = WHITE


def _centre(rng: np.random.Generator, world: Grid, label: np.ndarray) -> None:
    """Draw the deep gray matter and the ventricles inside the white matter."""
    wide = rng.uniform(0.75, 1.45)  # of all structures, ventricles vary most between people
    for side in (-1, 1):
        for centre, radii, turn in (
            ((14, -6, 8), (9, 15, 9), 20),  # thalamus
            ((27, 6, 4), (6, 17, 11), 12),  # putamen
            ((15, 16, 18), (5, 14, 9), 8),  # caudate
            ((30, -12, -22), (7, 18, 6), -10),  # hippocampus
        ):
            x, y, z = centre
            place = (side * x * rng.uniform(0.95, 1.05), y + rng.uniform(-2, 2), z + rng.uniform(-2, 2))
            label[ellipsoid(world, place, radii, -side * turn) < 1] = GRAY
        horn = ellipsoid(world, (side * 9, 2, 22), (4.5 * wide, 34, 7 * wide), side * 10)
        tail = ellipsoid(world, (side * 22, -34, 6), (4.5 * wide, 14, 12 * wide), side * -18)
        label[(horn < 1) | (tail < 1)] = CSF
    label[ellipsoid(world, (0, -4, 4), (2.2 * wide, 15, 11)) < 1] = CSF
    label[ellipsoid(world, (0, -34, -34), (7 * wide, 5, 9)) < 1] = CSF
