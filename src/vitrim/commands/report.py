"""`vitrim report`: the statistics of studies once more from their per-case tables, and the report."""

from __future__ import annotations

from pathlib import Path

from vitrim.errors import InputError
from vitrim.files import understood
from vitrim.progress import Reporter
from vitrim.report.build import build_comparison, build_report
from vitrim.report.several_runs import read_runs
from vitrim.studies.recompute import recompute

OUT = "comparison"
"""Default folder of a comparison of several studies."""


def write_report(
    *runs: str | Path, out: str | Path | None = None, all_figures: bool = False, reporter: Reporter | None = None
) -> list[Path]:
    """Compute the statistics of studies from their stored per-case tables, and write tables, figures and report.

    The same as the command `vitrim report`. Nothing is trained or measured. Of one study, the report is written into
    its folder. Several studies (other data sets, seeds or networks) are compared in one page and one LaTeX table.

    Args:
        runs: folders of studies.
        out: folder for the comparison of several studies; "comparison" by default.
        all_figures: draw the attention figures of every seed and fold, not only of each network's first.
        reporter: where progress goes.

    Returns:
        The paths written.

    Raises:
        InputError: if a folder holds no study or is named twice, a file in it cannot be read, or `out` is given for one
            study.

    Example:
        >>> import vitrim
        >>> sorted(path.name for path in vitrim.write_report("run") if path.suffix == ".csv")
        ['results.csv']
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise InputError("no study is named: give the folder of a study, such as runs/demo")
    if out is not None and len(folders) == 1:
        raise InputError(f"out is for several studies; the report of one study goes into its folder, {folders[0]}")
    if len(folders) > 1:
        read_runs(folders)  # a study that cannot be compared is refused before anything is written
    written = []
    for folder in folders:
        with understood(folder):
            written += recompute(folder)
    if len(folders) == 1:
        return [*written, *build_report(folders[0], reporter or Reporter(), redraw=True, all_figures=all_figures)]
    return [*written, *build_comparison(folders, Path(out or OUT))]
