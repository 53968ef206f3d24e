"""A study folder with synthetic numbers, so that tests of the report need no training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from vitrim.attention.decision import FEW_CASES, NO_INTERVAL, RULE_FILE, UNIFORM, BlockValue, Decision
from vitrim.compression.depth_decision import DECISION, DepthDecision, DepthResult
from vitrim.compression.exchange_curve import ExchangeCurve
from vitrim.config.names import NETWORK_TITLES
from vitrim.metrics.statistics import case_dice


def attention(grid: tuple[int, int], reach: float, rng: np.random.Generator, noise: float = 0.6) -> np.ndarray:
    """Return attention (N, N) with rows that sum to 1 and decrease with distance.

    reach: in patches; infinity gives uniform attention, except for the noise.
    """
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    distance = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    logits = -distance / reach + noise * rng.standard_normal(distance.shape)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def measures_of(maps: np.ndarray, grid: tuple[int, int]) -> dict[str, float]:
    """Return some measures of docs/definitions.md for one map (N, N). `distance_pixels` assumes 16-pixel patches."""
    n = len(maps)
    rows, columns = np.divmod(np.arange(n), grid[1])
    distance = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) == 1
    mean_distance = float((maps * distance).sum(1).mean())
    mean_row = maps.mean(0)
    return {
        "distance_patches": mean_distance,
        "distance_pixels": mean_distance * 16,
        "globality": mean_distance / float(distance.mean()),
        "self_share": float(np.diag(maps).mean()),
        "neighbourhood_share": float((maps * near).sum(1).mean()),
        "proximity_correlation": float(np.corrcoef(maps.ravel(), -distance.ravel())[0, 1]),
        "entropy": float(-(maps * np.log(maps + 1e-12)).sum(1).mean() / np.log(n)),
        "query_dependence": float((maps * np.log((maps + 1e-12) / (mean_row + 1e-12))).sum(1).mean() / np.log(n)),
    }


def labels(size: int, classes: int, shift: float) -> np.ndarray:
    """Return a label map (H, W) uint8 with one disc per class, moved by `shift` pixels to imitate a prediction."""
    y, x = np.mgrid[:size, :size]
    label = np.zeros((size, size), np.uint8)
    for index in range(classes):
        angle = 2 * np.pi * index / classes
        centre = size / 2 + size * 0.26 * np.array([np.sin(angle), np.cos(angle)]) + shift
        label[np.hypot(y - centre[0], x - centre[1]) < size * (0.06 + 0.015 * index)] = index + 1
    return label


def picture(size: int, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a grey body with brighter organs and noise, (H, W) float32, z-scored."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    body = (np.hypot(y / 0.46, x / 0.4) < 1).astype(float)
    image = body + 0.25 * label * (label > 0) / max(1, label.max()) + 0.08 * rng.standard_normal((size, size))
    return ((image - image.mean()) / image.std()).astype(np.float32)


def make_run(
    folder: Path,
    networks: tuple[str, ...] = ("transunet", "cats2d", "unetr2d"),
    classes: tuple[str, ...] = ("liver", "spleen", "left kidney", "aorta"),
    grid: tuple[int, int] = (8, 8),
    depths: dict[str, tuple[int, ...]] | None = None,
    uniform: tuple[str, ...] = ("transunet",),
    cases: int = 8,
    name: str = "demo",
    seed: int = 0,
    heads: int = 3,
    losing_dice: tuple[str, ...] = (),
) -> Path:
    """Write a study folder. Networks in `uniform` have uniform attention; the others become global with depth.

    Networks in `losing_dice` lose Dice when they are truncated, and no smaller depth of them is shown to be as good.
    """
    rng = np.random.default_rng(seed)
    depths = depths or {}
    folder.mkdir(parents=True, exist_ok=True)
    results, case_rows, cost, history = [], [], [], []
    size = 16 * grid[0]
    examples: dict[str, np.ndarray] = {}
    references = np.stack([labels(size, len(classes), 2.0 * k) for k in range(3)])
    examples["image"] = np.stack([picture(size, label, rng) for label in references])
    examples["reference"] = references
    examples["case"] = np.array([f"case_{k:03d}" for k in range(3)])
    examples["slice"] = np.arange(5, 8)
    for position, network in enumerate(networks):
        decided = 1 if network in uniform else 3
        rows = {12: "full"}
        for depth in depths.get(network, (3,)):
            rows[depth] = "fixed"
        rows[decided] = "decided+fixed" if decided in rows else "decided"
        full_dice = None
        for blocks in sorted(rows, reverse=True):
            lost = 0.1 if network in losing_dice else 0.01
            dice = {c: 0.9 - 0.03 * k - lost * (12 - blocks) / 12 + 0.004 * position for k, c in enumerate(classes)}
            per_case = {c: np.clip(d + 0.02 * rng.standard_normal(cases), 0, 1) for c, d in dice.items()}
            per_case[classes[-1]][0] = np.nan
            dice = {c: float(np.nanmean(v)) for c, v in per_case.items()}
            average = float(np.mean(list(dice.values())))
            full_dice = full_dice or average
            change = 100 * (average - full_dice) / full_dice
            parameters = 20_000_000 + 7_087_872 * blocks
            saved = 100 * (1 - parameters / (20_000_000 + 7_087_872 * 12))
            full = blocks == 12
            worse = network in losing_dice
            results.append(
                {"network": network, "blocks": blocks, "role": rows[blocks], "seed": seed, "train_slices": 192,
                 "train_cases": 12, "validation_cases": cases, "parameters": parameters,
                 "parameters_saved_percent": None if full else saved, "multiply_adds": int(1e9 * (4 + blocks)),
                 **{f"dice_{c}": v for c, v in dice.items()},
                 **{f"cases_{c}": cases - (c == classes[-1]) for c in classes},
                 "average_dice": average, "dice_change_percent": None if full else change,
                 "change_low_percent": None if full else change - 1.1,
                 "change_high_percent": None if full else change + 0.8,
                 "verdict_5": None if full else "worse" if worse else "not worse",
                 "verdict_1": None if full else "worse" if worse else "undecided",
                 **{f"hd95_{c}": 3.0 + k for k, c in enumerate(classes)}, "hd95_unit": "mm"}
            )  # fmt: skip
            for c, values in per_case.items():
                for k, value in enumerate(values):
                    case_rows.append(
                        {"network": network, "blocks": blocks, "seed": seed, "case": f"case_{k:03d}", "class": c,
                         "dice": value, "hd95": 3.0, "reference_voxels": 0 if np.isnan(value) else 900,
                         "predicted_voxels": 0 if np.isnan(value) else 880}
                    )  # fmt: skip
            cost.append(
                {"network": network, "blocks": blocks, "seed": seed, "train_seconds": 10.0 + 2 * blocks,
                 "milliseconds_per_slice": 5.0 + blocks, "peak_memory_mib": 300.0 + 20 * blocks, "device": "cpu"}
            )  # fmt: skip
            for step in range(0, 120, 4):
                loss = 1.2 * np.exp(-step / 40) + 0.2 + 0.03 * rng.standard_normal()
                history.append({"network": network, "blocks": blocks, "seed": seed, "step": step, "loss": loss})
            prediction = np.stack([labels(size, len(classes), 2.0 * k + 1.5 + 0.1 * (12 - blocks)) for k in range(3)])
            examples[f"prediction_{network}_{blocks}"] = prediction
        write_network(
            folder / "networks" / network, grid, decided, network in uniform, examples, rng, lost=network in losing_dice
        )
        if heads:
            depths_here = sorted(rows, reverse=True)
            write_explorer_file(folder / "networks" / network, network, depths_here, grid, heads, examples, rng)
    pd.DataFrame(results).to_csv(folder / "results.csv", index=False)
    pd.DataFrame(case_rows).to_csv(folder / "cases.csv", index=False)
    pd.DataFrame(cost).to_csv(folder / "cost.csv", index=False)
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    np.savez_compressed(folder / "examples.npz", **for_each_network(examples, networks, pd.DataFrame(case_rows)))
    (folder / "config.yaml").write_text(f"name: {name}\ndata:\n  layout: decathlon\n  image_size: {size}\nseed: 0\n")
    (folder / "versions.json").write_text(json.dumps({"python": "3.11", "torch": "2.15", "vitrim": "0.1.0"}))
    (folder / "split.json").write_text(json.dumps({"train": ["a", "b"], "validation": ["c"]}))
    (folder / "study.json").write_text(
        json.dumps({"study": {"name": name, "data": {"layout": "decathlon"}}, "data": "0" * 12})
    )
    return folder


def for_each_network(
    examples: dict[str, np.ndarray], networks: tuple[str, ...], cases: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return the three slices once for each network, with the names of its best, median and worst case."""
    arrays = {name: np.concatenate([array] * len(networks)) for name, array in examples.items() if name != "case"}
    own = []
    for network in networks:
        order = case_dice(cases[(cases["network"] == network) & (cases["blocks"] == 12)]).index.tolist()
        own += [order[0], order[len(order) // 2], order[-1]]
    return {**arrays, "network": np.repeat(networks, 3), "case": np.array(own)}


def write_network(
    folder: Path, grid: tuple[int, int], decided: int, uniform: bool, examples: dict[str, np.ndarray],
    rng: np.random.Generator, cases: int = 12, lost: bool = False,
) -> None:  # fmt: skip
    """Write profile.csv, untrained/profile.csv, decisions and maps.npz of one network with 12 blocks."""
    (folder / "untrained").mkdir(parents=True, exist_ok=True)
    profiles: dict[str, list[dict]] = {"": [], "untrained": []}
    maps = {}
    for where, rows in profiles.items():
        for block in range(1, 13):
            flat = uniform or where == "untrained"
            reach = 1e6 if flat else 0.7 * block**1.5
            for case in range(cases):
                heads = [attention(grid, reach, rng, 0.1 if flat else 0.6) for _ in range(3)]
                average = np.mean(heads, axis=0)
                if not where and case == 0 and block in (1, 2, 3, 6):
                    maps[block] = average
                for head, values in [("mean", average), *enumerate(heads, 1)]:
                    for measure, value in measures_of(values, grid).items():
                        rows.append({"case": f"train_{case}", "block": block, "head": head, "measure": measure,
                                     "value": value})  # fmt: skip
        pd.DataFrame(rows).to_csv(folder / where / "profile.csv", index=False)
    np.savez_compressed(
        folder / "maps.npz", case=np.array("train_0"), slice=np.array(7), image=examples["image"][0],
        grid=np.array(grid), blocks=np.array(sorted(maps)), maps=np.stack([maps[b] for b in sorted(maps)]),
    )  # fmt: skip
    trained, untrained = (pd.DataFrame(rows) for rows in profiles.values())
    write_decision(folder, trained, untrained, decided, cases, lost)
    losing(12, identity=decided, uniform=decided, constant=max(decided - 1, 0)).save(folder)


def write_explorer_file(
    folder: Path, network: str, depths: list[int], grid: tuple[int, int], heads: int, examples: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Write explorer.npz in the format of `vitrim.studies.snapshots.write_explorer`, with synthetic attention."""
    arrays = {name: examples[name] for name in ("case", "slice", "image", "reference")} | {"grid": np.array(grid)}
    for depth in depths:
        arrays[f"prediction_{depth}"] = examples[f"prediction_{network}_{depth}"]
        if depth == 0:
            continue
        maps = np.stack(
            [
                [[attention(grid, 0.4 * (head + 1) * block**1.3, rng) for head in range(heads)]
                 for block in range(1, depth + 1)]
                for _ in examples["case"]
            ]
        )  # fmt: skip
        arrays[f"mean_{depth}"] = maps.mean(axis=2).astype(np.float16)
        arrays |= {f"heads_{depth}_{b + 1}": maps[0, b].astype(np.float16) for b in range(depth)}
    np.savez_compressed(folder / "explorer.npz", **arrays)


def losing(blocks: int = 4, **ends: int) -> ExchangeCurve:
    """Return a curve over ten cases: with a form after fewer blocks than its number, Dice is halved."""
    rows = [("none", blocks, 0.8)]
    rows += [(form, k, 0.8 if k >= end else 0.4) for form, end in ends.items() for k in range(blocks)]
    cases = [
        {"form": form, "where": "after", "block": k, "case": f"case{n}", "class": "organ", "dice": dice + 0.001 * n,
         "reference_voxels": 9, "predicted_voxels": 9, "against": "labels"}
        for form, k, dice in rows for n in range(10)
    ]  # fmt: skip
    content = tuple(np.full(4, 0.3 / block) for block in range(1, blocks + 1))
    return ExchangeCurve(pd.DataFrame(cases), content, tuple(0.01 * heads for heads in content))


def write_decision(
    folder: Path, trained: pd.DataFrame, untrained: pd.DataFrame, depth: int, cases: int, lost: bool
) -> None:
    """Write attention_rule.json and decision.json, both with the given depth.

    The second says that it is enough or, with `lost`, that Dice is worse and no smaller depth was shown.
    """

    def means(table: pd.DataFrame, measure: str) -> dict[int, float]:
        rows = table[(table["measure"] == measure) & (table["head"] == "mean")]
        return {int(b): float(v) for b, v in rows.groupby("block")["value"].mean().items()}

    values, entropy = means(trained, "globality"), means(trained, "entropy")
    before, before_entropy = means(untrained, "globality"), means(untrained, "entropy")
    interval = cases >= 5
    blocks = tuple(
        BlockValue(b, values[b], values[b] - 0.03 if interval else None, values[b] + 0.03 if interval else None,
                   entropy[b], before[b], before_entropy[b])
        for b in values
    )  # fmt: skip
    few = () if cases >= 10 else (FEW_CASES,) if interval else (NO_INTERVAL,)
    flags = (*((UNIFORM,) if any(block.uniform for block in blocks) else ()), *few)
    ids = tuple(f"train_{k}" for k in range(cases))
    # This threshold gives the wanted depth.
    threshold = 2 / 3 if values[1] > 0.9 else (blocks[depth - 1].low or blocks[depth - 1].value) - 0.01
    Decision(depth, depth, depth, "globality", "mean", threshold, flags, blocks, ids, 2000, 0).save(folder / RULE_FILE)
    fair = {"percent": -0.2, "low": -1.0, "high": 0.5, "verdicts": {"5": "not worse", "1": "undecided"}}
    poor = {"percent": -6.7, "low": -10.7, "high": -3.2, "verdicts": {"5": "undecided", "1": "worse"}}
    found = DepthResult(depth=depth, cases=8, seeds=1, **(poor if lost else fair))  # type: ignore[arg-type]
    full = lost or depth == 12
    DepthDecision(
        network=NETWORK_TITLES[folder.name],
        full=12,
        depth=12 if full else depth,
        verdict="not shown" if full else "enough",
        margin=0.05,
        proposed=depth,
        rule="exchange",
        proposed_on="tuning",
        rules={"exchange": depth, "globality": depth},
        untrained={"globality": 1},
        exchange_percent=-12.0,
        tried=(found,) if depth < 12 else (),
        order=(depth,) if depth < 12 else (),
        confirmed=None if full else found,
    ).save(folder / DECISION)
