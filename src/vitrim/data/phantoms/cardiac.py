"""Phantom of a delayed-enhancement short-axis MRI: left ventricle with infarct and no-reflow, as in EMIDEC."""

from __future__ import annotations

import numpy as np

from vitrim.data.phantoms.shapes import Drawing, Grid, blur, ellipsoid

CLASSES = ("cavity", "myocardium", "infarction", "no-reflow")
"""Classes in the order of EMIDEC's label values."""
MODALITY = "MRI"
SHAPE = (128, 128, 7)
EXTENT = (192.0, 192.0, 70.0)
NOISE = 9.0

CAVITY, MYOCARDIUM, INFARCTION, NO_REFLOW = 1, 2, 3, 4
HEALTHY = 1 / 3
"""Share of cases without an infarct, as in EMIDEC."""


def draw(rng: np.random.Generator, grid: Grid) -> Drawing:
    """Draw one heart from base (first slice) to apex: myocardium, scar, right ventricle, lungs, chest wall, liver."""
    centre = np.array([rng.uniform(-8, 8), rng.uniform(-8, 8)])
    thorax = grid.warped(rng, 5.0, 60.0)
    heart = grid.warped(rng, 1.6, 28.0)
    x = heart.points[0] - np.float32(centre[0])
    y = heart.points[1] - np.float32(centre[1])
    image = _surroundings(rng, thorax, centre)

    span = grid.shape[2] * grid.spacing[2]
    along = (grid.points[2] / span + 0.5).clip(0, 1)  # 0 at the base, 1 at the apex
    taper = np.sqrt(np.clip(1 - (along * rng.uniform(0.86, 0.95)) ** 2.2, 0.05, 1))
    radius = np.hypot(x * rng.uniform(0.95, 1.05), y)
    angle = np.degrees(np.arctan2(y, x))
    inner = rng.uniform(21, 27) * taper
    wall = rng.uniform(8, 11) * (0.8 + 0.2 * taper) + 0.7 * heart.noise(rng, 25.0)
    cavity, ring = radius < inner, (radius >= inner) & (radius < inner + wall)

    _right_ventricle(rng, heart, image, centre, taper, inner + wall)
    label = np.zeros(grid.shape, np.uint8)
    label[ring], label[cavity] = MYOCARDIUM, CAVITY
    image[ring], image[cavity] = 42, 168
    _papillary(rng, x, y, inner, image)
    if rng.random() > HEALTHY:
        _scar(rng, heart, angle, (radius - inner) / wall, along, ring, image, label)
    image += 5 * grid.noise(rng, 12.0)
    sigma = 0.9 / grid.spacing[0]
    return Drawing(blur(image, (sigma, sigma, 0)).clip(0), label)


def _surroundings(rng: np.random.Generator, grid: Grid, centre: np.ndarray) -> np.ndarray:
    """Return an image with chest wall, lungs, pericardial fat and the liver below."""
    cx, cy = centre
    image = np.full(grid.shape, 72.0, np.float32)
    lung = ellipsoid(grid, (cx - 62, cy - 10, 0), (52, 66, 1e6)) < 1
    lung |= ellipsoid(grid, (cx + 92, cy - 18, 0), (34, 52, 1e6)) < 1
    image[lung] = 14
    image[ellipsoid(grid, (cx + 48, cy - 88, 0), (70, 40, 1e6)) < 1] = 96
    chest = grid.points[1] > cy + 62 + 0.002 * (grid.points[0] - cx) ** 2
    image[chest] = 130
    image[chest & (np.sin(grid.points[0] / 7) > 0.75)] = 55
    fat = ellipsoid(grid, (cx + 14, cy + 2, 0), (62, 50, 1e6), turn=-15)
    image[(fat > 0.86) & (fat < 1)] = rng.uniform(115, 150)
    image[fat <= 0.86] = 78
    return image


def _right_ventricle(
    rng: np.random.Generator, grid: Grid, image: np.ndarray, centre: np.ndarray, taper: np.ndarray, outer: np.ndarray
) -> None:
    """Draw the right ventricle: a crescent of bright blood around the septum, with its wall."""
    cx, cy = centre
    x, y = grid.points[0] - np.float32(cx), grid.points[1] - np.float32(cy)
    size = 27 * taper * rng.uniform(0.9, 1.1)
    crescent = np.hypot((x - outer - 1) / size, (y - 6) / (1.25 * size)) < 1
    wall = np.hypot((x - outer - 1) / (size + 4), (y - 6) / (1.25 * size + 4)) < 1
    image[wall] = 52
    image[crescent & (np.hypot(x, y) > outer + 1)] = 160


def _papillary(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, inner: np.ndarray, image: np.ndarray) -> None:
    """Draw two papillary muscles in the cavity; the label stays cavity."""
    for direction in (rng.uniform(-80, -45), rng.uniform(120, 160)):
        px, py = np.cos(np.radians(direction)) * 0.66 * inner, np.sin(np.radians(direction)) * 0.66 * inner
        image[(np.hypot(x - px, y - py) < 0.17 * inner) & (inner > 12)] = 60


def _scar(
    rng: np.random.Generator,
    grid: Grid,
    angle: np.ndarray,
    depth: np.ndarray,
    along: np.ndarray,
    ring: np.ndarray,
    image: np.ndarray,
    label: np.ndarray,
) -> None:
    """Draw an infarct: a sector that starts at the inner wall. Its core may be a dark no-reflow area."""
    wobble = grid.noise(rng, 22.0)
    away = np.abs((angle - rng.uniform(-180, 180) + 180) % 360 - 180)
    half = rng.uniform(35, 75) + 6 * wobble
    transmural = rng.uniform(0.55, 1.05) * np.sqrt(np.clip(1 - (away / half) ** 2, 0, 1)) + 0.06 * wobble
    start = rng.uniform(0, 0.45)
    reached = (along > start) & (along < start + rng.uniform(0.4, 0.7))
    infarct = ring & reached & (away < half) & (depth < transmural)
    image[infarct], label[infarct] = rng.uniform(195, 235), INFARCTION
    if rng.random() < 0.6:
        core = infarct & (away < 0.62 * half) & (depth > 0.1) & (depth < 0.62 * transmural)
        image[core], label[core] = rng.uniform(48, 75), NO_REFLOW
