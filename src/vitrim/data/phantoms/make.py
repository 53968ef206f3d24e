"""Draw seeded phantom data sets and write them in the layouts that the readers accept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vitrim.config.schema import PhantomConfig
from vitrim.data.phantoms import abdomen, brain, cardiac, chain, longrange
from vitrim.data.phantoms.shapes import Drawing, Grid, Triple
from vitrim.data.phantoms.writers import WRITERS, Writer
from vitrim.errors import ConfigurationError
from vitrim.files import replacing

KINDS: dict[str, Any] = {"brain": brain, "cardiac": cardiac, "abdomen": abdomen, "longrange": longrange, "chain": chain}

LAYOUTS = {
    "brain": ("decathlon", "ibsr18"),
    "cardiac": ("decathlon", "emidec"),
    "abdomen": ("decathlon", "synapse", "synapse-raw"),
    "longrange": ("decathlon",),
    "chain": ("decathlon",),
}
"""Layouts in which each kind can be written. `synapse` is the TransUNet release (npz and h5), `synapse-raw` the NIfTI
files of the challenge with 13 organs. The reader `synapse` reads both."""


def write_phantom(
    config: PhantomConfig,
    folder: Path,
    layout: str = "decathlon",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a phantom data set to `folder` and return the folder. It is written completely or not at all.

    The same configuration gives the same voxels, and a case does not depend on the number of cases. Raises
    ConfigurationError if `folder` is a file or is not empty, if the kind cannot be written in `layout`, if it has fewer
    classes than the configuration asks for, or if the orientation is not possible.
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
        classes = 2 * config.hops if config.kind == "chain" and config.classes is None else config.classes
        writer: Writer = WRITERS[layout](temporary, config, kind.CLASSES[:classes], kind.MODALITY)
        for number in range(config.cases):
            writer.write(number, draw_phantom(config, number, shape, spacing), spacing)
            if progress:
                progress(number + 1, config.cases)
        writer.finish()
    return folder


def draw_phantom(config: PhantomConfig, number: int, shape: tuple[int, int, int], spacing: Triple) -> Drawing:
    """Draw case `number` (from 0) with the classes, bias field and noise of the configuration."""
    kind = KINDS[config.kind]
    grid = Grid.over(shape, spacing)
    rng = np.random.default_rng([config.seed, number])
    control = {"hops": config.hops, "places": config.places, "balanced": config.balanced}
    options = control if config.kind in ("longrange", "chain") else {}
    drawing = kind.draw(rng, grid, **options)
    if config.classes is not None:
        drawing.label[drawing.label > config.classes] = 0
    scanner = np.random.default_rng(
        [config.seed, number, 1]
    )  # a separate seed, so that noise does not change the anatomy
    image = drawing.image
    if config.bias_field:
        image = _bias(scanner, grid, image, config.bias_field, floor=-1000.0 if kind.MODALITY == "CT" else 0.0)
    image = _noise(scanner, image, kind.NOISE * config.noise, magnitude=kind.MODALITY == "MRI")
    return Drawing(image.astype(np.float32), drawing.label)


def _bias(rng: np.random.Generator, grid: Grid, image: np.ndarray, strength: float, floor: float) -> np.ndarray:
    """Multiply the image by a smooth field from 1 - `strength` to 1 + `strength` across the patient.

    `floor` is the intensity of air, which stays unchanged.
    """
    direction = rng.standard_normal(3).astype(np.float32)
    field = np.tensordot(direction / np.linalg.norm(direction), grid.points, 1)
    field = field / np.abs(field).max() + 0.3 * grid.noise(rng, 90.0)
    patient = image - floor > 0.1 * (image.max() - floor)
    low, high = field[patient].min(), field[patient].max()
    field = ((2 * field - low - high) / max(high - low, 1e-6)).clip(-1, 1)
    return (image - floor) * (1 + strength * field) + floor


def _noise(rng: np.random.Generator, image: np.ndarray, deviation: float, magnitude: bool) -> np.ndarray:
    """Add Gaussian noise. A magnitude image (MRI) has noise in two channels, which makes it Rician."""
    if not deviation:
        return image
    noisy = image + rng.normal(0, deviation, image.shape)
    return np.hypot(noisy, rng.normal(0, deviation, image.shape)) if magnitude else noisy
