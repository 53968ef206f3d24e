"""Drawing tools of all phantoms: a grid in mm, smooth random fields, simple shapes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

Triple = tuple[float, float, float]


@dataclass
class Drawing:
    """One phantom case in RAS+ orientation."""

    image: np.ndarray
    """float32 (X, Y, Z)"""
    label: np.ndarray
    """uint8 (X, Y, Z); label n is the n-th of the kind's CLASSES, 0 is the background"""


@dataclass
class Grid:
    """Voxel centres in mm: x to the patient's right, y to the front, z to the head; 0 is the centre of the volume."""

    points: np.ndarray
    """float32 (3, X, Y, Z)"""
    spacing: Triple

    @classmethod
    def over(cls, shape: tuple[int, int, int], spacing: Triple) -> Grid:
        """Return the grid with `shape` voxels of `spacing` mm."""
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * side for n, side in zip(shape, spacing, strict=True)]
        return cls(np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32), spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along X, Y, Z."""
        x, y, z = self.points.shape[1:]
        return x, y, z

    def scaled(self, factor: float) -> Grid:
        """Return the grid for a patient who is `factor` times as large."""
        return Grid(self.points / np.float32(factor), self.spacing)

    def warped(self, rng: np.random.Generator, amplitude: float, length: float) -> Grid:
        """Return the grid with a smooth random displacement of about `amplitude` mm that varies over `length` mm."""
        shift = np.stack([self.noise(rng, length) for _ in range(3)])
        return Grid(self.points + np.float32(amplitude) * shift, self.spacing)

    def noise(self, rng: np.random.Generator, length: float) -> np.ndarray:
        """Return smooth noise, float32 (X, Y, Z), that varies over `length` mm; its standard deviation is about 1."""
        steps = [side / length for side in self.spacing]
        coarse = [int(np.ceil((n - 1) * step)) + 4 for n, step in zip(self.shape, steps, strict=True)]
        values = rng.standard_normal(coarse).astype(np.float32)
        for axis, (n, step) in enumerate(zip(self.shape, steps, strict=True)):
            weights = _spline(1 + np.arange(n) * step, coarse[axis])
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
        return 2 * values


def _spline(places: np.ndarray, count: int) -> np.ndarray:
    """Return the cubic B-spline weights (n, count) of `count` knots at `places` (n,)."""
    start = np.floor(places).astype(int)
    t = places - start
    parts = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6]
    weights = np.zeros((len(places), count), np.float32)
    for k, part in enumerate(parts):
        weights[np.arange(len(places)), start + k - 1] = part
    return weights


def ellipsoid(grid: Grid, centre: Triple, radii: Triple, turn: float = 0.0, power: float = 2.0) -> np.ndarray:
    """Return the relative distance (X, Y, Z) of every voxel from the centre; it is 1 on the surface of the ellipsoid.

    `turn` rotates the ellipsoid in the axial plane, in degrees. `power` above 2 makes it more like a box.
    """
    x, y, z = (grid.points[n] - np.float32(centre[n]) for n in range(3))
    if turn:
        cos, sin = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))
        x, y = cos * x + sin * y, cos * y - sin * x
    parts = [part / np.float32(radius) for part, radius in zip((x, y, z), radii, strict=True)]
    if power == 2.0:
        return np.sqrt(sum(part * part for part in parts))
    return np.asarray(sum(np.abs(part) ** np.float32(power) for part in parts) ** np.float32(1 / power))


def tube(grid: Grid, path: np.ndarray, radius: float) -> np.ndarray:
    """Return the distance (X, Y, Z) of every voxel to the polyline `path` (n, 3), in units of `radius`."""
    best = np.full(grid.shape, np.inf, np.float32)
    for a, b in pairwise(path.astype(np.float32)):
        along = b - a
        offset = grid.points - a[:, None, None, None]
        t = np.clip(np.tensordot(along, offset, 1) / (along @ along), 0, 1)
        best = np.minimum(best, np.linalg.norm(offset - t * along[:, None, None, None], axis=0))
    return best / np.float32(radius)


def waves(points: np.ndarray, rng: np.random.Generator, length: float, count: int = 16) -> np.ndarray:
    """Return noise with the single wavelength `length` mm at `points` (3, …).

    It is 0 on curved surfaces; its standard deviation is 1.
    """
    return _waves(points, rng, length, count)[0]


def furrows(points: np.ndarray, rng: np.random.Generator, length: float, count: int = 16) -> np.ndarray:
    """Return the approximate distance in mm from `points` (3, …) to curved sheets that lie `length` / 2 mm apart."""
    value, slope = _waves(points, rng, length, count)
    return np.abs(value) / (np.linalg.norm(slope, axis=0) + np.float32(0.15 * 2 * np.pi / length))


def _waves(points: np.ndarray, rng: np.random.Generator, length: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise of `waves` and its gradient (3, …) per mm."""
    total = np.zeros(points.shape[1:], np.float32)
    slope = np.zeros(points.shape, np.float32)
    scale = np.float32(np.sqrt(2 / count))
    for _ in range(count):
        direction = rng.standard_normal(3)
        vector = (direction / np.linalg.norm(direction) * 2 * np.pi / length).astype(np.float32)
        phase = np.tensordot(vector, points, 1) + np.float32(rng.uniform(0, 2 * np.pi))
        total += scale * np.cos(phase)
        slope -= scale * np.sin(phase) * vector.reshape(3, *(1,) * (points.ndim - 1))
    return total, slope


def blur(image: np.ndarray, sigma: Triple) -> np.ndarray:
    """Blur with a Gaussian of `sigma` voxels along X, Y, Z, like the partial volume effect of a scanner."""
    return ndimage.gaussian_filter(image, sigma, mode="nearest")
