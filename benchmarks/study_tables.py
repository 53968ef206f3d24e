"""Processor time of the statistics, tables and pages of a large study, from its stored results.

    python benchmarks/study_tables.py

The benchmark writes the folder of a study of 13 depths, 3 networks and 5 seeds, with 20 held-out cases, 8 classes,
12 blocks, 12 heads, and the attention and exchange curve of each of the 15 full networks. The numbers are drawn at
random. Then it does what `vitrim report` does, and prints the processor time of each step. The limit is 20 s for
statistics and pages. Figures for a paper are apart, because they take a fixed time for each full network.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from vitrim.attention.figures import write_figures
from vitrim.attention.measures import MEASURES
from vitrim.attention.profile import AttentionProfile
from vitrim.attention.rule import decide_depth
from vitrim.compression.depth_decision import DECISION, DepthDecision
from vitrim.compression.depth_rules import INFLUENCE
from vitrim.compression.exchange_curve import FORMS, ExchangeCurve
from vitrim.config.names import NETWORK_TITLES
from vitrim.files import write_json, write_table
from vitrim.progress import Reporter
from vitrim.report.build import build_report
from vitrim.studies.recompute import recompute

NETWORKS = ("transunet", "cats2d", "unetr2d")
DEPTHS = range(12, -1, -1)
SEEDS, CASES, CLASSES, BLOCKS, HEADS = 5, 20, 8, 12, 12
LIMIT = 20.0


def per_case(rng: np.random.Generator, loss: float, **columns: object) -> pd.DataFrame:
    """Return a per-case table whose Dice is lower by `loss`; one class is absent from every fourth case."""
    rows = []
    for case in range(CASES):
        level = 0.85 + 0.002 * case
        for number in range(CLASSES):
            absent = number == CLASSES - 1 and case % 4 == 0
            dice = float(np.clip(level - 0.02 * number - loss + 0.01 * rng.standard_normal(), 0, 1))
            voxels = 0 if absent else 900
            rows.append(
                {
                    "case": f"case_{case:03d}",
                    "class": f"class_{number}",
                    "dice": np.nan if absent else dice,
                    "hd95": 3.0,
                    "hd95_unit": "mm",
                    "reference_voxels": voxels,
                    "predicted_voxels": voxels,
                }
            )
    table = pd.DataFrame(rows)
    return pd.concat([pd.DataFrame([columns] * len(table)), table], axis=1)


def loss_at(depth: int) -> float:
    """Return the loss of Dice with `depth` blocks: none from block 4 on."""
    return 0.03 * max(0, 4 - depth)


def write_attention(folder: Path, rng: np.random.Generator) -> None:
    """Write profile, attention rule, block influence and exchange curve of one full network."""
    measures = tuple(name for name, measure in MEASURES.items() if not measure.is_distance)
    values = np.linspace(0.2, 0.9, BLOCKS)[None, :, None, None] * rng.uniform(
        0.9, 1.1, (CASES, BLOCKS, 1 + HEADS, len(measures))
    )
    cases = tuple(f"train_{case:03d}" for case in range(CASES))
    layers, heads = tuple(f"block{k}" for k in range(BLOCKS)), (HEADS,) * BLOCKS
    profile = AttentionProfile(cases, (8,) * CASES, layers, heads, measures, values, (14, 14), 0, (16.0, 16.0), 196)
    profile.save(folder)
    profile.save(folder / "untrained")
    decide_depth(profile, untrained=profile).save(folder / "attention_rule.json")
    influence = pd.DataFrame(rng.uniform(size=(CASES, BLOCKS)), columns=[f"block_{k + 1}" for k in range(BLOCKS)])
    write_table(folder / INFLUENCE, influence.assign(case=cases))
    rows = [per_case(rng, 0.0, form="none", where="after", block=BLOCKS)]
    for form in FORMS:
        rows += [per_case(rng, loss_at(k), form=form, where="after", block=k) for k in range(BLOCKS)]
    rows += [per_case(rng, loss_at(BLOCKS), form="identity", where="alone", block=k + 1) for k in range(BLOCKS)]
    rows += [per_case(rng, loss_at(BLOCKS), form="identity", where="too", block=k + 1) for k in range(4)]
    table = pd.concat(rows, ignore_index=True).drop(columns=["hd95", "hd95_unit"]).assign(against="labels")
    content = tuple(rng.uniform(size=HEADS) for _ in range(BLOCKS))
    ExchangeCurve(table, content, content).save(folder)


def write_study(run: Path) -> None:
    """Write the folder of a study as `vitrim study` leaves it, without networks, pictures and costs."""
    rng = np.random.default_rng(0)
    results, cases = [], []
    for network in NETWORKS:
        for seed in range(SEEDS):
            write_attention(run / "networks" / (f"{network}-seed{seed}-fold0" if seed else network), rng)
        DepthDecision(
            network=NETWORK_TITLES[network],  # type: ignore[index]
            full=BLOCKS,
            depth=4,
            verdict="enough",
            margin=0.05,
            proposed=4,
            rule="exchange",
            proposed_on="tuning",
            rules={},
            untrained={},
        ).save(run / "networks" / network / DECISION)
        for blocks in DEPTHS:
            role = "full" if blocks == BLOCKS else "decided" if blocks == 4 else "fixed"
            row = {"network": network, "blocks": blocks, "role": role, "init": "scratch", "seed": 0, "seeds": SEEDS}
            results.append(
                row
                | {"folds": 1, "train_slices": 1000, "train_cases": CASES, "validation_cases": CASES}
                | {"parameters": 20_000_000 + 7_087_872 * blocks, "multiply_adds": 10**9 * (4 + blocks)}
                | {"parameters_saved_percent": None if blocks == BLOCKS else 5.0 * (BLOCKS - blocks)}
            )
            cases += [
                per_case(rng, loss_at(blocks), network=network, blocks=blocks, seed=seed, fold=0)
                for seed in range(SEEDS)
            ]
    write_table(run / "results.csv", pd.DataFrame(results))
    write_table(run / "cases.csv", pd.concat(cases, ignore_index=True))
    write_json(run / "study.json", {"study": {"name": "sweep", "margins": [0.05, 0.01]}})


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of `work`."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "sweep"
        write_study(run)
        statistics = seconds(lambda: recompute(run))
        networks = sorted((run / "networks").glob("*"))
        figures = seconds(lambda: [write_figures(each) for each in networks])
        pages = seconds(lambda: build_report(run, Reporter()))  # the figures are there
        print(f"statistics and tables {statistics:.1f} s, pages {pages:.1f} s: {statistics + pages:.1f} s of processor")
        print(f"time (limit: {LIMIT:g}); figures of {len(networks)} networks {figures:.1f} s")


if __name__ == "__main__":
    main()
