"""Looks at a trained full network: attention on training cases, and what Dice loses without exchange of tokens."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vitrim.attention.analysis import ExampleSlice, analyse_network
from vitrim.attention.decision import Decision, stored_rule
from vitrim.compression.block_selection import block_influence
from vitrim.compression.depth_rules import INFLUENCE
from vitrim.compression.exchange_curve import EXCHANGE
from vitrim.compression.measure_exchange import find_exchanging_blocks, measure_exchange
from vitrim.config.schema import AttentionConfig
from vitrim.data.cache import PreparedData
from vitrim.data.sampling import case_images, evenly_spaced, example_slice
from vitrim.files import read_json, remove, write_json, write_table
from vitrim.hardware import Hardware
from vitrim.progress import Reporter
from vitrim.studies.trial import Result, exchange_cases, initial_network, trial_title
from vitrim.studies.trial_files import TRIAL


def analyse_full_network(
    full: Result, config: AttentionConfig, data: PreparedData, folder: Path, reporter: Reporter, margin: float
) -> Decision:
    """Measure the attention of `full` and of the untrained network, and what its Dice loses without exchange.

    Stores in `folder` the profiles and the answer of the attention rule, influence.csv (block influence of each case),
    exchange.csv (the exchange curve) and content.csv (content dependence by block and head). Results that are stored
    already are not measured again.
    """
    trial = full.trial
    cases = evenly_spaced(trial.split.train, config.cases)
    if read_json(folder / TRIAL).get("trial", trial.key) != trial.key:  # the study has grown, and another one is first
        remove(folder)
    if stored_rule(folder) is None:
        with reporter.stage(f"attention of {trial_title(trial)}", 2 * len(cases)) as stage:
            analyse_network(
                full.network(),
                initial_network(trial).eval(),
                lambda: case_images(cases, data.cache, config.slices, stage),
                ExampleSlice(cases[0], *example_slice(cases[0], data.cache)),
                folder,
                config,
                trial.seed,
                Hardware.of(trial.training),
            )
        write_json(folder / TRIAL, {"trial": trial.key})
    if not (folder / INFLUENCE).is_file():
        with reporter.stage(f"block influence of {trial_title(trial)}", len(cases)) as stage:
            network = full.network()
            with Hardware.of(trial.training).running(network):
                found = block_influence(network, case_images(cases, data.cache, config.slices, stage))
        table = pd.DataFrame(found, columns=[str(block + 1) for block in range(found.shape[1])])
        table.insert(0, "case", cases)
        write_table(folder / INFLUENCE, table)
    if not (folder / EXCHANGE).is_file():
        _measure_exchange(full, config, data, folder, reporter, margin)
    rule = stored_rule(folder)
    assert rule is not None
    return rule


def _measure_exchange(
    full: Result, config: AttentionConfig, data: PreparedData, folder: Path, reporter: Reporter, margin: float
) -> None:
    trial, network = full.trial, full.network()
    cases = exchange_cases(trial.split.train, trial.split.tuning)
    hardware = Hardware.of(trial.training)
    with reporter.stage(f"exchange of tokens in {trial_title(trial)}", 3 * len(cases)) as stage:
        found = measure_exchange(
            network, network.depth, data, cases, hardware, stage, config.forms, initial_network(trial)
        )
    end = found.cutoff(margin)
    if end and len(config.forms) > 1:
        with reporter.stage(f"blocks that must exchange in {trial_title(trial)}", end * len(cases)) as stage:
            found = find_exchanging_blocks(network, found, data, cases, hardware, margin, stage)
    found.save(folder)
