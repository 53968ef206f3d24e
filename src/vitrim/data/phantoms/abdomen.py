"""Phantom of an abdominal CT in the portal venous phase, with the eight organs of the Synapse task."""

from __future__ import annotations

import numpy as np

from vitrim.data.phantoms.shapes import Drawing, Grid, Triple, blur, ellipsoid, tube, waves

CLASSES = ("liver", "spleen", "left kidney", "right kidney", "stomach", "aorta", "gallbladder", "pancreas")
"""Large organs first: a phantom with n classes has the first n."""

MODALITY = "CT"
SHAPE = (256, 256, 40)
EXTENT = (370.0, 300.0, 140.0)
"""Field of view in mm: the upper abdomen, where most slices show most organs."""
NOISE = 18.0
"""Standard deviation of the noise, in Hounsfield units."""

HOUNSFIELD = {
    "liver": 108.0,
    "spleen": 146.0,
    "left kidney": 200.0,
    "right kidney": 200.0,
    "stomach": 52.0,
    "aorta": 165.0,
    "gallbladder": 10.0,
    "pancreas": 92.0,
}
"""Mean of each organ in Hounsfield units; noise and differences between cases make the intensities overlap."""


def draw(rng: np.random.Generator, grid: Grid) -> Drawing:
    """Draw one abdomen with all organs."""
    lean = rng.uniform(0.94, 1.06)
    world = grid.scaled(rng.uniform(0.95, 1.06)).warped(rng, 3.0, 60.0)
    fat = rng.uniform(12, 24)
    skin = ellipsoid(world, (0, 0, 0), (168 * lean, 122, 1e6), power=2.4)
    wall = ellipsoid(world, (0, 0, 0), (168 * lean - fat, 122 - fat, 1e6), power=2.4)
    cavity = ellipsoid(world, (0, 2, 0), (154 * lean - fat, 108 - fat, 1e6), power=2.4)
    inside = cavity < 1

    image = np.full(grid.shape, -1000.0, np.float32)
    image[skin < 1], image[wall < 1], image[inside] = -105, 55, -85
    _bowel(rng, world, inside, image)
    label = np.zeros(grid.shape, np.uint8)
    for name, mask in _organs(rng, world, lean):
        mask = mask & inside
        image[mask] = HOUNSFIELD.get(name, 150.0) + rng.normal(0, 9)
        label[mask] = CLASSES.index(name) + 1 if name in CLASSES else 0
    _gas(rng, world, image, label)
    _bones(rng, world, image, label, cavity, wall)
    texture = 9 * grid.noise(rng, 9.0) + 5 * grid.noise(rng, 25.0)
    sigma = 1.6 / grid.spacing[0]
    image = blur(image, (sigma, sigma, 0)) + np.where(skin < 1, texture, 0)
    return Drawing(image, label)


def _bowel(rng: np.random.Generator, world: Grid, inside: np.ndarray, image: np.ndarray) -> None:
    """Draw bowel loops in the fat; some contain contrast agent or gas."""
    loop = waves(world.points, rng, 62.0, 12)
    filling = world.noise(rng, 45.0)
    image[inside & (np.abs(loop) < 0.5)] = 28
    core = inside & (np.abs(loop) < 0.33)
    image[core] = np.where(filling[core] > 1.1, -600, np.where(filling[core] < -1.1, 120, 5))


def _organs(rng: np.random.Generator, world: Grid, lean: float) -> list[tuple[str, np.ndarray]]:
    """Return name and mask of each organ, in drawing order: later organs cover earlier ones."""

    def near(x: float, y: float, z: float) -> Triple:
        dx, dy, dz = rng.uniform(-6, 6, 3)
        return x * lean + dx, y + dy, z + 1.5 * dz

    def about(*radii: float) -> Triple:
        x, y, z = np.array(radii) * rng.uniform(0.93, 1.08) * rng.uniform(0.95, 1.05, 3)
        return x, y, z

    body = world.warped(rng, 4.0, 35.0)
    right_lobe = ellipsoid(body, near(80, 5, 28), about(62, 84, 84))
    left_lobe = ellipsoid(body, near(18, 46, 38), about(74, 36, 46), turn=-12)
    spleen = ellipsoid(body, near(-104, -26, 32), about(33, 56, 60), turn=rng.uniform(-28, -12))
    stomach = ellipsoid(body, near(-54, 40, 22), about(48, 44, 70), turn=rng.uniform(15, 40))
    kidneys = {}
    for side, x, z, turn in (("right kidney", 66, -22, 25), ("left kidney", -66, -12, -25)):
        centre, radii = near(x, -46, z), about(33, 38, 64)
        sinus = (centre[0] - np.sign(x) * 24, centre[1] + 8, centre[2])
        kidneys[side] = (ellipsoid(body, centre, radii, turn) < 1) & (ellipsoid(body, sinus, (14, 10, 22)) > 1)
    head = np.array(near(44, 6, -30))
    pancreas = head + np.array([(0, 0, 0), (-28, 14, 14), (-62, 8, 26), (-112, -16, 42)])
    gallbladder = ellipsoid(body, near(52, 54, -22), about(17, 23, 32), turn=20)
    vessel = np.array([near(-9, -30, -200), near(-7, -34, 200)])
    cava = np.array([near(22, -28, -200), near(24, -26, 200)])
    return [
        ("stomach", stomach < 1),
        ("liver", (right_lobe < 1) | (left_lobe < 1)),
        ("spleen", spleen < 1),
        ("left kidney", kidneys["left kidney"]),
        ("right kidney", kidneys["right kidney"]),
        ("pancreas", tube(body, pancreas, rng.uniform(11, 14)) < 1),
        ("gallbladder", gallbladder < 1),
        ("vena cava", tube(world, cava, rng.uniform(10, 13)) < 1),
        ("aorta", tube(world, vessel, rng.uniform(9.5, 12)) < 1),
    ]


def _gas(rng: np.random.Generator, world: Grid, image: np.ndarray, label: np.ndarray) -> None:
    """Draw gas at the front of the stomach, because the patient lies on the back. It keeps the stomach's label."""
    stomach = label == CLASSES.index("stomach") + 1
    if stomach.any():
        image[stomach & (world.points[1] > np.quantile(world.points[1][stomach], rng.uniform(0.86, 0.98)))] = -700


def _bones(
    rng: np.random.Generator,
    world: Grid,
    image: np.ndarray,
    label: np.ndarray,
    cavity: np.ndarray,
    wall: np.ndarray,
) -> None:
    """Draw the spine with its canal and muscles, and the ribs that cross the slices."""
    x, y, z = world.points
    muscle = (ellipsoid(world, (38, -76, 0), (30, 24, 1e6)) < 1) | (ellipsoid(world, (-38, -76, 0), (30, 24, 1e6)) < 1)
    body = ellipsoid(world, (0, -62, 0), (23, 19, 1e6)) < 1
    process = (np.abs(x) < 5) & (y < -86) & (y > -112)
    canal = ellipsoid(world, (0, -86, 0), (9, 8, 1e6)) < 1
    ribs = (cavity > 1.0) & (wall < 0.97) & (np.sin(np.arctan2(y, np.abs(x)) * 4.5 + z / 9 + rng.uniform(0, 6)) > 0.72)
    for mask, value in ((muscle, 58.0), (ribs, 320.0), (process | body, 230.0), (canal, 30.0)):
        mask = mask & (wall < 1)
        image[mask] = value
        label[mask] = 0
