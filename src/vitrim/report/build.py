"""Write the report of a study from its stored files. Nothing is trained or measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from vitrim.attention.figures import write_figures
from vitrim.config.names import NetworkName
from vitrim.files import understood, write_text
from vitrim.progress import Reporter
from vitrim.report.answers import answers
from vitrim.report.html_page import comparison_page
from vitrim.report.html_page import page as html_page
from vitrim.report.markdown_page import comparison_markdown
from vitrim.report.markdown_page import page as markdown_page
from vitrim.report.paper import comparison
from vitrim.report.rule_comparison import rules_table
from vitrim.report.run import Run, read_run
from vitrim.report.several_runs import latex_table, read_runs
from vitrim.report.study_table import provisional_note, results_table
from vitrim.report.tables import latex


def build_report(run: Path, reporter: Reporter, *, redraw: bool = False, all_figures: bool = False) -> list[Path]:
    """Write report.md, report.tex (LaTeX tables) and report.html into the folder of the study; return their paths.

    Also draw the attention figures of each network, of its first seed and fold, unless they are there; with `redraw`
    again, and with `all_figures` those of all seeds and folds.

    Raises InputError if the folder holds no study, or if a file in it cannot be read.
    """
    with understood(run):
        stored = read_run(run)
        found = answers(stored)
        pages = {
            "report.md": markdown_page(stored, found),
            "report.tex": latex_tables(stored),
            "report.html": html_page(stored, found),
        }
    paths = []
    for name, text in pages.items():
        write_text(stored.folder / name, text)
        paths.append(stored.folder / name)
    folders = [path.parent for path in sorted((stored.folder / "networks").glob("*/profile.json"))]
    wanted = [folder for folder in folders if all_figures or folder.name in get_args(NetworkName)]
    missing = [folder for folder in wanted if redraw or not (folder / "figures").is_dir()]
    if missing:
        with reporter.stage("figures", len(missing)) as stage:
            for folder in missing:
                with understood(folder):
                    write_figures(folder)
                stage.advance(note=folder.name)
    return paths


def build_comparison(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write comparison.md, comparison.tex and comparison.html of several studies into `out`; return their paths.

    Raises InputError if a folder holds no study or is named twice, or if a file in it cannot be read.
    """
    named = read_runs(runs)
    pages = {
        "comparison.md": comparison_markdown(named),
        "comparison.tex": latex_table(named),
        "comparison.html": comparison_page(named),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        write_text(out / name, text)
    return [out / name for name in pages]


def latex_tables(run: Run) -> str:
    """Return the LaTeX tables: results and, if available, the comparison with the paper and the depth rules."""
    results = results_table(run)
    results = replace(results, notes=(*results.notes, *provisional_note(run)))
    text = latex(results, f"Study {run.name}: Dice and savings by truncation.", "tab:vitrim")
    paper = comparison(run)
    if paper is not None:
        text += "\n" + latex(paper, f"Study {run.name} compared with the paper.", "tab:vitrim-paper")
    rules = rules_table(run)
    if rules is not None:
        text += "\n" + latex(
            rules, f"Study {run.name}: depth that each rule chose and depth that was needed.", "tab:vitrim-rules"
        )
    return text
