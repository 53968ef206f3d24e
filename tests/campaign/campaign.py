"""Runs damaged input through the command line and says what went wrong.

    python -m tests.campaign.campaign [INPUTS OF EACH KIND]

prints the table of docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.campaign.inputs import KINDS, Whole
from tests.support import vitrim
from vitrim.data.io import read_nifti

PATIENCE = 60
"""Seconds after which a command hangs."""

IMAGES = ("header", "zipped")
"""Kinds of input that are one damaged image."""

FOREIGN = "notes of the user.txt"


class HangError(BaseException):
    """A command did not end in `PATIENCE` seconds. No `except Exception` catches it."""


@dataclass(frozen=True)
class Outcome:
    """What a command did with one input."""

    status: int
    said: str
    faults: tuple[str, ...]


def run(kind: str, number: int, whole: Whole, place: Path) -> Outcome:
    """Give input `number` of a kind to vitrim. `place` is an empty folder."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
    command = KINDS[kind](whole, place, rng)
    (place / FOREIGN).write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    out, err, faults = io.StringIO(), io.StringIO(), []
    previous = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = vitrim(*command)
    except HangError:
        status, _ = -1, faults.append("hang")
    except BaseException as error:
        status, _ = -1, faults.append(f"traceback: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    said = err.getvalue().strip()
    if "this is a fault of vitrim" in said:
        faults.append(f"fault: {said}")
    if status not in (-1, 0, 1, 2) or (status > 0 and len(said.splitlines()) != 1):
        faults.append(f"status {status} with {len(said.splitlines())} lines: {said[:300]}")
    if "\x1b" in out.getvalue() + said:
        faults.append("escape sequence on the terminal")
    if len(said) > 2000:
        faults.append(f"a message of {len(said)} characters")
    if (place / FOREIGN).read_text() != "mine":
        faults.append("foreign file touched")
    written = command[0] == "report"  # it writes into the folder that it reads
    faults += [
        f"input changed: {path}" for path, stamp in before.items()
        if not written and (not path.exists() or path.stat().st_mtime_ns != stamp)
    ]  # fmt: skip
    if status == 0 and kind in IMAGES and not _told(place, whole, out.getvalue()):
        faults.append("other voxels, and not a word")
    faults += [f"left over: {path.name}" for path in place.rglob(".*.part*")]
    return Outcome(status, said, tuple(faults))


def _told(place: Path, whole: Whole, output: str) -> bool:
    """Whether the damaged image has the voxels of the whole one, or the command said that its header scales them."""
    image = next(path for path in place.iterdir() if path.name.startswith("in.nii"))
    found, expected = (read_nifti(path).array for path in (image, whole.image))
    return np.array_equal(found, expected) or "headers scale intensities" in output


def _hang(*_: object) -> None:
    raise HangError


def campaign(count: int, whole: Whole, folder: Path) -> dict[str, list[Outcome]]:
    """Run `count` inputs of every kind."""
    found: dict[str, list[Outcome]] = {}
    for kind in KINDS:
        found[kind] = []
        for number in range(count):
            place = folder / f"{kind}-{number}"
            place.mkdir(parents=True)
            found[kind].append(run(kind, number, whole, place))
    return found


def table(found: dict[str, list[Outcome]]) -> str:
    """A Markdown table: by kind how many inputs were taken, refused, and went wrong."""
    lines = [
        "| input | inputs | taken (status 0) | refused in one line | went wrong |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    total: Counter[str] = Counter()
    for kind, outcomes in found.items():
        wrong = sum(bool(outcome.faults) for outcome in outcomes)
        taken = sum(outcome.status == 0 and not outcome.faults for outcome in outcomes)
        counts = {"inputs": len(outcomes), "taken": taken, "refused": len(outcomes) - taken - wrong, "wrong": wrong}
        total.update(counts)
        first = (KINDS[kind].__doc__ or kind).strip().splitlines()[0].rstrip(".")
        lines.append(f"| {first} | {' | '.join(str(value) for value in counts.values())} |")
    return "\n".join([*lines, f"| **all** | {' | '.join(str(total[key]) for key in counts)} |"])


def main() -> None:
    """Run the campaign and print its table, and every input that went wrong."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 160
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contextlib.redirect_stdout(io.StringIO()):
            whole = Whole.make(folder / "whole")
        found = campaign(count, whole, folder / "inputs")
    print(table(found))
    print(f"\n{time.monotonic() - begin:.0f} s")
    for kind, outcomes in found.items():
        for number, outcome in enumerate(outcomes):
            for fault in outcome.faults:
                print(f"{kind} {number}: {fault}")


if __name__ == "__main__":
    main()
