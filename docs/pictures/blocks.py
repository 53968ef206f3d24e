"""Draw what attention does in each block of the trained networks of some studies, for docs/depth.md.

    python docs/pictures/blocks.py runs/chain runs/hippocampus

Left: what Dice needs from each block (`ExchangeCurve.roles`). Right: content dependence, trained and before training.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from vitrim.compression.exchange_curve import ExchangeCurve

HERE = Path(__file__).parent
MARGIN = 0.05
COLOURS = {"content": "#0072b2", "fixed places": "#56b4e9", "pools": "#e69f00", "nothing": "#dddddd"}
WORDS = {
    "content": "looks by content",
    "fixed places": "looks at fixed places",
    "pools": "pools",
    "nothing": "does nothing that Dice needs",
}


def main(runs: list[Path]) -> None:
    found = [(title(folder), curve) for run in runs for folder in folders(run) if (curve := ExchangeCurve.load(folder))]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 0.36 * len(found) + 1.5), width_ratios=(1, 1), sharey=True, layout="constrained"
    )
    widest = max(float(np.mean(heads)) for _, curve in found for heads in curve.content)
    for row, (_, curve) in enumerate(found):
        for block, role in enumerate(curve.roles(MARGIN), start=1):
            left.barh(row, 0.9, left=block - 0.45, color=COLOURS[role], height=0.8)
        kept = curve.exchanging(MARGIN)
        left.plot(kept or [], [row] * len(kept or ()), "k.", markersize=5)
        for shift, content, colour in ((-0.2, curve.content, "#0072b2"), (0.2, curve.untrained_content, "#999999")):
            for block, heads in enumerate(content, start=1):
                size = float(np.mean(heads))
                right.barh(row + shift, 0.9 * size / widest, left=block - 0.45, height=0.38, color=colour)
    left.set_yticks(range(len(found)), [name for name, _ in found])
    left.invert_yaxis()
    for axis, text in (
        (left, "what Dice needs from the block"),
        (right, f"content dependence (widest bar: {widest:.2f})"),
    ):
        axis.set_xticks(range(1, 13))
        axis.set_xlim(0.5, 12.5)
        axis.set_xlabel("block")
        axis.set_title(text, fontsize=10)
    keys = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[role]) for role in WORDS]
    keys += [plt.Line2D([], [], color="k", marker=".", linestyle="")]
    keys += [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in ("#0072b2", "#999999")]
    words = [*WORDS.values(), "enough alone", "content dependence, trained", "content dependence, before training"]
    figure.legend(keys, words, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(HERE / "blocks.png", dpi=110)
    print(f"wrote {HERE / 'blocks.png'}")


def folders(run: Path) -> list[Path]:
    return sorted(folder for folder in (run / "networks").iterdir() if (folder / "exchange.csv").is_file())


def title(folder: Path) -> str:
    """The study, the network and its seed."""
    run = folder.parent.parent
    study = json.loads((run / "study.json").read_text(encoding="utf-8"))["study"]["name"]
    trial = json.loads((folder / "trial.json").read_text(encoding="utf-8"))["trial"]
    seed = json.loads((run / "trials" / trial / "trial.json").read_text(encoding="utf-8"))["seed"]
    names = {"transunet": "TransUNet", "cats2d": "2D CATS", "unetr2d": "2D UNETR"}
    return f"{study}, {names[trial.split('-')[0]]}, seed {seed}"


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]])
