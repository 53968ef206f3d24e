"""The files of a study, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitrim.attention.decision import Decision, stored_rule
from vitrim.attention.maps import StoredMaps
from vitrim.compression.depth_decision import DECISION, FORMAT, DepthDecision
from vitrim.compression.exchange_curve import ExchangeCurve
from vitrim.config.names import NETWORK_TITLES
from vitrim.errors import InputError
from vitrim.files import read_arrays, read_json, read_table
from vitrim.studies.folder import VERSIONS

REQUIRED = ("network", "blocks", "role", "seed", "average_dice")


@dataclass(frozen=True)
class Examples:
    """Example slices: image (n, H, W), reference (n, H, W), and predictions (n, H, W) by (network, blocks).

    `networks` names the network for which each slice was chosen, where full and truncated network differ most; None in
    studies of version 0.1.0, whose slices are the fullest of their cases.
    """

    cases: tuple[str, ...]
    slices: tuple[int, ...]
    image: np.ndarray
    reference: np.ndarray
    predictions: dict[tuple[str, int], np.ndarray]
    networks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Augmented:
    """Training slices before, image and label (n, H, W), and after augmentation in some epochs (n, epochs, H, W)."""

    cases: tuple[str, ...]
    slices: tuple[int, ...]
    image: np.ndarray
    label: np.ndarray
    changed_image: np.ndarray
    changed_label: np.ndarray


@dataclass(frozen=True)
class NetworkRun:
    """One network: its decisions, attention profiles and raw maps. A field is None if it was not stored."""

    name: str
    folder: Path
    rule: Decision | None
    """Answer of the attention rule."""
    decision: DepthDecision | None
    """The decided depth with its verdict."""
    profile: pd.DataFrame | None
    untrained: pd.DataFrame | None
    maps: StoredMaps | None
    exchange: ExchangeCurve | None = None

    @property
    def margin(self) -> float:
        """Non-inferiority margin of the decision; 0.05 if none was stored."""
        return self.decision.margin if self.decision is not None else 0.05

    @property
    def title(self) -> str:
        """Name of the network in text."""
        return NETWORK_TITLES.get(self.name, self.name)


@dataclass(frozen=True)
class Run:
    """The contents of the folder of a study. A table is None if its file does not exist."""

    folder: Path
    name: str
    config: str
    study: dict[str, Any]
    versions: dict[str, Any]
    results: pd.DataFrame
    cases: pd.DataFrame | None
    cost: pd.DataFrame | None
    history: pd.DataFrame | None
    rules: pd.DataFrame | None
    """rules.csv of a depth sweep: depth chosen by each rule, and depth needed."""
    networks: tuple[NetworkRun, ...]
    examples: Examples | None
    augmented: Augmented | None = None
    """None without augmentation."""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Foreground classes in the order of their labels."""
        return tuple(c.removeprefix("dice_") for c in self.results.columns if c.startswith("dice_") and c != CHANGE)

    @cached_property
    def margins(self) -> tuple[str, ...]:
        """Non-inferiority margins in percent, as in the column names."""
        return tuple(c.removeprefix("verdict_") for c in self.results.columns if c.startswith("verdict_"))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the study, in the order of the results table."""
        return tuple(dict.fromkeys(int(seed) for seed in self.results["seed"]))

    def rows(self, network: str) -> pd.DataFrame:
        """Return the results of one network, the full network first."""
        return self.results[self.results["network"] == network]

    def row(self, network: str, blocks: int, seed: int) -> pd.Series | None:
        """Return one row of the results; None if this network was not trained."""
        found = self.results[
            (self.results["network"] == network) & (self.results["blocks"] == blocks) & (self.results["seed"] == seed)
        ]
        return None if found.empty else found.iloc[0]

    def full_blocks(self, network: str) -> int:
        """Return the number of blocks of the full network."""
        rows = self.rows(network)
        full = rows[rows["role"] == "full"]
        return int((full if len(full) else rows)["blocks"].max())


CHANGE = "dice_change_percent"


def read_run(folder: Path) -> Run:
    """Read the folder of a study.

    Raises InputError if it holds no finished study, or if a file in it cannot be used.
    """
    folder = Path(folder)
    if not (folder / "results.csv").is_file():
        raise InputError(f"{folder} holds no finished study: results.csv is missing; run `vitrim study` first")
    results = _table(folder / "results.csv")
    missing = [column for column in REQUIRED if results is None or column not in results.columns]
    if missing or results is None or results.empty:
        raise InputError(
            f"{folder / 'results.csv'} is not the results table of a study: it lacks {', '.join(missing) or 'rows'}"
        )
    study = read_json(folder / "study.json")
    settings = study.get("study")
    names = list(dict.fromkeys(str(name) for name in results["network"]))
    return Run(
        folder=folder,
        name=str(settings["name"]) if isinstance(settings, dict) and "name" in settings else folder.name,
        config=_text(folder / "config.yaml"),
        study=study,
        versions=read_json(folder / VERSIONS),
        results=results,
        cases=_table(folder / "cases.csv"),
        cost=_table(folder / "cost.csv"),
        history=_table(folder / "history.csv"),
        rules=_table(folder / "rules.csv"),
        networks=tuple(read_network(folder / "networks" / name, name) for name in names),
        examples=_examples(folder / "examples.npz"),
        augmented=_augmented(folder / "augmented.npz"),
    )


def read_network(folder: Path, name: str) -> NetworkRun:
    """Read what is stored of one network. Raises InputError if a file cannot be used."""
    path = folder / DECISION
    return NetworkRun(
        name=name,
        folder=folder,
        rule=stored_rule(folder),
        decision=DepthDecision.load(path) if path.is_file() and read_json(path).get("format") == FORMAT else None,
        profile=_table(folder / "profile.csv"),
        untrained=_table(folder / "untrained" / "profile.csv"),
        maps=StoredMaps.load(folder / "maps.npz"),
        exchange=ExchangeCurve.load(folder),
    )


def _table(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.is_file() else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _augmented(path: Path) -> Augmented | None:
    stored = read_arrays(path)
    if stored is None:
        return None
    cases, slices = tuple(str(case) for case in stored.pop("case")), tuple(int(n) for n in stored.pop("slice"))
    return Augmented(cases, slices, **stored)


def _examples(path: Path) -> Examples | None:
    stored = read_arrays(path)
    if stored is None:
        return None
    predictions = {}
    for name, array in stored.items():
        if name.startswith("prediction_"):
            network, _, blocks = name.removeprefix("prediction_").rpartition("_")
            predictions[network, int(blocks)] = array
    return Examples(
        cases=tuple(str(case) for case in stored["case"]),
        slices=tuple(int(index) for index in stored["slice"]),
        image=stored["image"],
        reference=stored["reference"],
        predictions=predictions,
        networks=tuple(str(name) for name in stored["network"]) if "network" in stored else None,
    )
