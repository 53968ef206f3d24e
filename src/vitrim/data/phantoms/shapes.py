"""What all phantoms are drawn with: a grid in mm, smooth randomness, simple bodies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass
class Drawing:
    """One phantom case, in RAS+ orientation."""

    image: np.ndarray
    """float32 (X, Y, Z)"""
    label: np.ndarray
    """uint8 (X, Y, Z)"""
    spacing: tuple[float, float, float]
    """mm along X, Y, Z"""


@dataclass
class Grid:
    """Voxel centres in mm: x to the right, y to the front, z to the head of the patient, 0 in the middle."""

    points: np.ndarray
    """float32 (3, X, Y, Z)"""
    spacing: tuple[float, float, float]

    @classmethod
    def over(cls, shape: tuple[int, int, int], extent: tuple[float, float, float]) -> Grid:
        """The grid of `shape` voxels that covers `extent` mm."""
        sides = tuple(mm / n for mm, n in zip(extent, shape, strict=True))
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * side for n, side in zip(shape, sides, strict=True)]
        return cls(np.stack(np.meshgrid(*axes, indexing="ij")), (sides[0], sides[1], sides[2]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        x, y, z = self.points.shape[1:]
        return x, y, z

    def warped(self, rng: np.random.Generator, amplitude: float, length: float) -> Grid:
        """The same grid seen through a smooth random displacement of about `amplitude` mm."""
        shift = np.stack([self.noise(rng, length) for _ in range(3)])
        return Grid(self.points + np.float32(amplitude) * shift, self.spacing)

    def noise(self, rng: np.random.Generator, length: float) -> np.ndarray:
        """Smooth noise of about unit deviation that changes over `length` mm, float32 (X, Y, Z)."""
        coarse = [max(4, int(np.ceil(n * side / length)) + 3) for n, side in zip(self.shape, self.spacing, strict=True)]
        values = rng.standard_normal(coarse)
        for axis, (n, side) in enumerate(zip(self.shape, self.spacing, strict=True)):
            places = 1 + np.arange(n) * min(side / length, (coarse[axis] - 3) / max(n - 1, 1))
            values = _interpolate(values, places, axis)
        return (values * 1.4).astype(np.float32)


def _interpolate(values: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Cubic B-spline along one axis."""
    start = np.floor(places).astype(int).clip(1, values.shape[axis] - 3)
    t = places - start
    weights = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6]
    along = [-1 if n == axis else 1 for n in range(values.ndim)]
    parts = [np.take(values, start + k - 1, axis) * w.reshape(along) for k, w in enumerate(weights)]
    return np.sum(parts, axis=0)


def ellipsoid(
    grid: Grid,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn: float = 0.0,
    power: float = 2.0,
) -> np.ndarray:
    """How far out every voxel lies, 1 on the surface; turned by `turn` degrees in the axial plane (X, Y, Z)."""
    x, y, z = (grid.points[n] - centre[n] for n in range(3))
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    x, y = cos * x + sin * y, cos * y - sin * x
    return sum(np.abs(part / r) ** power for part, r in zip((x, y, z), radii, strict=True)) ** (1 / power)


def tube(grid: Grid, path: np.ndarray, radius: float) -> np.ndarray:
    """Distance to a polyline `path` (n, 3) in units of `radius` (X, Y, Z)."""
    best = np.full(grid.shape, np.inf, np.float32)
    for a, b in zip(path[:-1], path[1:], strict=True):
        along = (b - a).astype(np.float32)
        offset = grid.points - a.astype(np.float32)[:, None, None, None]
        t = np.clip(np.tensordot(along, offset, 1) / (along @ along), 0, 1)
        best = np.minimum(best, np.linalg.norm(offset - t * along[:, None, None, None], axis=0))
    return best / radius


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Partial volume within slices, as a scanner has it: a Gaussian of `sigma` voxels along X and Y."""
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
