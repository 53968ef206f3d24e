"""Seeded phantoms: data sets that are made instead of downloaded, written in the layouts that the readers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.config.schema import PhantomConfig
from vitrim.data.phantoms import abdomen, brain, cardiac, longrange
from vitrim.data.phantoms.shapes import Drawing, Grid, Triple
from vitrim.data.phantoms.writers import WRITERS, Writer
from vitrim.errors import ConfigurationError
from vitrim.files import replacing

KINDS: dict[str, Any] = {"brain": brain, "cardiac": cardiac, "abdomen": abdomen, "longrange": longrange}

LAYOUTS = {
    "brain": ("decathlon", "ibsr18"),
    "cardiac": ("decathlon", "emidec"),
    "abdomen": ("decathlon", "synapse", "synapse-raw"),
    "longrange": ("decathlon",),
}
"""What each kind can be written as; `synapse` is the TransUNet release's npz and h5, `synapse-raw` the challenge's
NIfTI files with 13 organs. Both are read as the layout `synapse`."""


def write_phantom(
    config: PhantomConfig,
    folder: Path,
    layout: str = "decathlon",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a phantom data set into `folder`, which appears whole or not at all, and return it.

    The same configuration gives the same voxels, and a case does not depend on how many there are. InputError if
    there is something at `folder` already, if the kind is not written in that layout, or if it has fewer structures
    than asked for.
    """
    folder = Path(folder)
    kind = KINDS[config.kind]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} exists already: choose a new folder for the phantom")
    if layout not in LAYOUTS[config.kind]:
        raise ConfigurationError(
            f"phantom {config.kind} is written as {' or '.join(LAYOUTS[config.kind])}, not as {layout!r}"
        )
    if config.classes is not None and not 1 <= config.classes <= len(kind.CLASSES):
        raise ConfigurationError(f"phantom {config.kind} has 1 to {len(kind.CLASSES)} classes, not {config.classes}")
    if any(len({*config.orientation} & {*pair}) != 1 for pair in ("RL", "AP", "SI")):
        raise ConfigurationError(
            f"{config.orientation!r} is not an orientation: expected one each of R or L, A or P, S or I"
        )
    shape = config.shape or kind.SHAPE
    spacing = config.spacing or tuple(mm / n for mm, n in zip(kind.EXTENT, shape, strict=True))
    with replacing(folder) as temporary:
        temporary.mkdir()
        writer: Writer = WRITERS[layout](temporary, config, kind.CLASSES[: config.classes], kind.MODALITY)
        for number in range(config.cases):
            writer.write(number, draw_phantom(config, number, shape, spacing), spacing)
            if progress:
                progress(number + 1, config.cases)
        writer.finish()
    return folder


def draw_phantom(config: PhantomConfig, number: int, shape: tuple[int, int, int], spacing: Triple) -> Drawing:
    """Draw case `number` (from 0) with everything that the configuration asks for."""
    kind = KINDS[config.kind]
    grid = Grid.over(shape, spacing)
    rng = np.random.default_rng([config.seed, number])
    control = {"hops": config.hops, "places": config.places, "balanced": config.balanced}
    options = control if config.kind == "longrange" else {}
    drawing = kind.draw(rng, grid, **options)
    if config.classes is not None:
        drawing.label[drawing.label > config.classes] = 0
    scanner = np.random.default_rng([config.seed, number, 1])  # so that noise leaves the anatomy as it is
    image = drawing.image
    if config.bias_field:
        image = _bias(scanner, grid, image, config.bias_field, floor=-1000.0 if kind.MODALITY == "CT" else 0.0)
    image = _noise(scanner, image, kind.NOISE * config.noise, magnitude=kind.MODALITY == "MRI")
    return Drawing(image.astype(np.float32), drawing.label)


def _bias(rng: np.random.Generator, grid: Grid, image: np.ndarray, strength: float, floor: float) -> np.ndarray:
    """Multiply with a smooth field that goes from 1 - strength to 1 + strength across the patient."""
    direction = rng.standard_normal(3).astype(np.float32)
    field = np.tensordot(direction / np.linalg.norm(direction), grid.points, 1)
    field = field / np.abs(field).max() + 0.3 * grid.noise(rng, 90.0)
    patient = image - floor > 0.1 * (image.max() - floor)
    low, high = field[patient].min(), field[patient].max()
    field = ((2 * field - low - high) / max(high - low, 1e-6)).clip(-1, 1)
    return (image - floor) * (1 + strength * field) + floor


def _noise(rng: np.random.Generator, image: np.ndarray, deviation: float, magnitude: bool) -> np.ndarray:
    """Gaussian noise; in a magnitude image (MRI) that of two channels, which is Rician."""
    if not deviation:
        return image
    noisy = image + rng.normal(0, deviation, image.shape)
    return np.hypot(noisy, rng.normal(0, deviation, image.shape)) if magnitude else noisy
