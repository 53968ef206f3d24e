"""How much longer a study takes while another one runs on the same cores.

    python benchmarks/side_by_side.py [--steps 120] [--rounds 2]

The study is 2D UNETR of the demo, the full network alone. In each round one study runs alone, then two start at the
same time. Nothing else may run. The time is that of the slower of the two.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def start(folder: Path, steps: int) -> subprocess.Popen[bytes]:
    """Start the study, silent, in a new folder."""
    main = "from vitrim.cli import main; main()"
    options = ["--networks", "unetr2d", "--tries", "0", "--set", f"training.steps={steps}", "--quiet", "--out", folder]
    return subprocess.Popen([sys.executable, "-c", main, "study", "demo", *options], stdout=subprocess.DEVNULL)


def seconds(studies: int, steps: int) -> float:
    """Seconds until so many studies, started at the same time, are done."""
    with tempfile.TemporaryDirectory() as place:
        begin = time.monotonic()
        running = [start(Path(place) / str(number), steps) for number in range(studies)]
        states = [process.wait() for process in running]
        if any(states):
            raise SystemExit("a study failed")
        return time.monotonic() - begin


def main() -> None:
    """Print the seconds of one study and of two, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="steps of the training")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    ratios = []
    for number in range(1, given.rounds + 1):
        alone, both = seconds(1, given.steps), seconds(2, given.steps)
        ratios.append(both / alone)
        print(f"round {number}: one {alone:.1f} s, two at once {both:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
