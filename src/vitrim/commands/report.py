"""`vitrim report`: the statistics of a study once more from its per-case table, and its report."""

from __future__ import annotations

from pathlib import Path

from vitrim.files import understood
from vitrim.progress import Reporter
from vitrim.report.build import build_report
from vitrim.studies.recompute import recompute


def write_report(run: str | Path, *, reporter: Reporter | None = None) -> list[Path]:
    """Compute the statistics of a study from its stored per-case table, and write its tables, figures and report.

    The same as the command `vitrim report`. Nothing is trained or measured. Returns the paths written.

    Raises:
        InputError: if the folder holds no study, or a file in it cannot be read.

    Example:
        >>> import vitrim
        >>> sorted(path.name for path in vitrim.write_report("run") if path.suffix == ".csv")
        ['results.csv']
    """
    run = Path(run)
    with understood(run):
        recomputed = recompute(run)
    return [*recomputed, *build_report(run, reporter or Reporter(), redraw=True)]
