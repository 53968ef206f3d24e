"""Make the report of a study from what it stored; nothing is trained or measured here."""

from __future__ import annotations

from pathlib import Path

from vitrim.files import write_text
from vitrim.report.answers import answers
from vitrim.report.markdown import page as markdown_page
from vitrim.report.page import page as html_page
from vitrim.report.paper import comparison
from vitrim.report.rules import rules_table
from vitrim.report.run import Run, read_run
from vitrim.report.tables import latex, results_table


def write_report(run: Path) -> list[Path]:
    """Write report.md, report.tex (tables for a paper) and report.html into the study's folder and return their paths.

    InputError where the folder holds no study, or a file in it cannot be read.
    """
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
    return paths


def latex_tables(run: Run) -> str:
    """The study's table, and the one beside the paper where there is one, to be used in a paper."""
    text = latex(results_table(run), f"Study {run.name}: Dice, and what truncation saves.", "tab:vitrim")
    paper = comparison(run)
    if paper is not None:
        text += "\n" + latex(paper, f"Study {run.name} beside the paper.", "tab:vitrim-paper")
    rules = rules_table(run)
    if rules is not None:
        text += "\n" + latex(rules, f"Study {run.name}: what each rule chose, and what was needed.", "tab:vitrim-rules")
    return text
