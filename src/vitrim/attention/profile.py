"""Attention measures of a model per case, block and head, as a table and as two files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vitrim.attention.measures import MEASURES
from vitrim.errors import InputError
from vitrim.files import parse_json, plain_cells, replacing, safe_cells, short_reason, write_json

FORMAT = "vitrim attention profile 1"


@dataclass(frozen=True)
class AttentionProfile:
    """Attention measures per case, block and head. The value of a case is the mean over its slices."""

    cases: tuple[str, ...]
    slices: tuple[int, ...]
    """Number of slices measured in each case."""
    layers: tuple[str, ...]
    """Name of the attention layer of each block. Blocks count from 1."""
    heads: tuple[int, ...]
    """Number of heads of each block. Heads count from 1."""
    measures: tuple[str, ...]
    values: np.ndarray
    """(cases, blocks, 1 + heads, measures) float64. Index 0 of the third axis is the head-averaged attention. NaN marks
    a value that does not exist: rollout of a single head, or a distance in mm if the spacing is unknown."""
    grid: tuple[int, ...]
    prefix_tokens: int
    patch: tuple[float, ...]
    """Pixels from one patch to the next, along each axis of the grid."""
    queries: int
    """Number of the queries that the proximity correlation used."""

    @property
    def blocks(self) -> int:
        return len(self.layers)

    def of(self, measure: str, head: int | str = "mean") -> np.ndarray:
        """Return one measure of the head-averaged attention or of one head (from 1): (cases, blocks) float64.

        Raises:
            InputError: if the profile does not hold the measure or the head.
        """
        if measure not in self.measures:
            raise InputError(f"the profile does not hold {measure!r}; it holds {', '.join(self.measures)}")
        if head != "mean" and not (isinstance(head, int) and 1 <= head <= max(self.heads)):
            raise InputError(f"no such head: {head!r}; there are 'mean' and 1 to {max(self.heads)}")
        return self.values[:, :, 0 if head == "mean" else int(head), self.measures.index(measure)]

    def table(self) -> pd.DataFrame:
        """Return columns case, block, head (a number or "mean"), measure, value. A missing value has no row."""
        names: list[int | str] = ["mean", *range(1, max(self.heads) + 1)]
        case, block, head, measure = (axis.ravel() for axis in np.indices(self.values.shape))
        there = ~np.isnan(self.values.ravel())
        return pd.DataFrame(
            {
                "case": np.array(self.cases, dtype=object)[case],
                "block": block + 1,
                "head": np.array(names, dtype=object)[head],
                "measure": np.array(self.measures, dtype=object)[measure],
                "value": self.values.ravel(),
            }
        )[there].reset_index(drop=True)

    def save(self, folder: Path) -> None:
        """Write `profile.json` (layers, heads, grid, cases, means over cases) and `profile.csv` (the table)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "profile.csv") as temporary:
            safe_cells(self.table()).to_csv(temporary, index=False)
        means = np.array([[_mean_or_none(self.of(m)[:, b]) for m in self.measures] for b in range(self.blocks)])
        write_json(
            folder / "profile.json",
            {
                "format": FORMAT,
                "grid": list(self.grid),
                "prefix_tokens": self.prefix_tokens,
                "patch": list(self.patch),
                "layers": list(self.layers),
                "heads": list(self.heads),
                "measures": {name: MEASURES[name].unit for name in self.measures},
                "proximity_queries": self.queries,
                "cases": dict(zip(self.cases, self.slices, strict=True)),
                "head_averaged": [
                    {"block": block + 1, **dict(zip(self.measures, row, strict=True))}
                    for block, row in enumerate(means.tolist())
                ],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> AttentionProfile:
        """Read the files that `save` wrote. Raises InputError if they do not exist or hold something else."""
        folder = Path(folder)
        try:
            if not (folder / "profile.json").is_file():
                raise InputError(f"no attention profile in {folder}: profile.json is missing")
            head = parse_json(folder / "profile.json")
            table = pd.read_csv(
                folder / "profile.csv", dtype={"case": str, "head": str, "measure": str}, na_filter=False
            )
            table = plain_cells(table)
            if head["format"] != FORMAT:
                raise InputError(f"{folder / 'profile.json'} has format {head['format']!r}, not {FORMAT!r}")
            cases, measures = tuple(head["cases"]), tuple(head["measures"])
            values = np.full((len(cases), len(head["layers"]), 1 + max(head["heads"]), len(measures)), math.nan)
            index = (
                table["case"].map({name: i for i, name in enumerate(cases)}),
                table["block"] - 1,
                table["head"].replace("mean", "0").astype(int),
                table["measure"].map({name: i for i, name in enumerate(measures)}),
            )
            values[index] = table["value"].astype(float)
            return cls(
                cases=cases,
                slices=tuple(head["cases"].values()),
                layers=tuple(head["layers"]),
                heads=tuple(head["heads"]),
                measures=measures,
                values=values,
                grid=tuple(head["grid"]),
                prefix_tokens=head["prefix_tokens"],
                patch=tuple(head["patch"]),
                queries=head["proximity_queries"],
            )
        except OSError as error:
            raise InputError(f"no attention profile in {folder}: {error.strerror or error}") from error
        except (InputError, MemoryError):
            raise
        except Exception as error:  # whatever a damaged file raises
            raise InputError(f"the attention profile in {folder} cannot be read: {short_reason(error)}") from error


def _mean_or_none(values: np.ndarray) -> float | None:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else None
