"""Analyses the attention of a trained full network on its training cases: the second step of a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vitrim.attention.analysis import ExampleSlice, analyse_network
from vitrim.attention.decision import Decision
from vitrim.compression.block_selection import block_influence
from vitrim.config.schema import AttentionConfig
from vitrim.data.cache import PreparedData
from vitrim.data.sampling import case_images, evenly_spaced, example_slice
from vitrim.files import write_table
from vitrim.progress import Reporter
from vitrim.studies.trial import Result, initial_network, trial_title

INFLUENCE = "influence.csv"


def analyse_full_network(
    full: Result, config: AttentionConfig, data: PreparedData, folder: Path, reporter: Reporter
) -> Decision:
    """Measure the attention of `full` and of the untrained network, and decide the depth. Store both in `folder`.

    Also writes influence.csv, the block influence of each case (`vitrim.compression.block_selection`). Results that are
    stored already are not measured again.
    """
    trial = full.trial
    cases = evenly_spaced(trial.split.train, config.cases)
    if not (folder / "decision.json").is_file():
        with reporter.stage(f"attention of {trial_title(trial)}", 2 * len(cases)) as stage:
            analyse_network(
                full.network(),
                initial_network(trial).eval(),
                lambda: case_images(cases, data.cache, config.slices, stage),
                ExampleSlice(cases[0], *example_slice(cases[0], data.cache)),
                folder,
                config,
                trial.seed,
            )
    if not (folder / INFLUENCE).is_file():
        with reporter.stage(f"block influence of {trial_title(trial)}", len(cases)) as stage:
            found = block_influence(full.network(), case_images(cases, data.cache, config.slices, stage))
        table = pd.DataFrame(found, columns=[str(block + 1) for block in range(found.shape[1])])
        table.insert(0, "case", cases)
        write_table(folder / INFLUENCE, table)
    return Decision.load(folder / "decision.json")


def stored_influence(folder: Path) -> np.ndarray | None:
    """Return the stored block influence as an array (cases, blocks); None if there is none."""
    path = folder / INFLUENCE
    return pd.read_csv(path).drop(columns="case").to_numpy(np.float64) if path.is_file() else None
