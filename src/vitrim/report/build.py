"""Make the report of a study from what it stored; nothing is trained or measured here."""

from __future__ import annotations

from pathlib import Path

from vitrim.files import write_text
from vitrim.report.answers import answers
from vitrim.report.markdown import page as markdown_page
from vitrim.report.page import page as html_page
from vitrim.report.run import read_run


def write_report(run: Path) -> list[Path]:
    """Write report.md and report.html into the study's folder `run` and return their paths.

    InputError where the folder holds no study, or a file in it cannot be read.
    """
    stored = read_run(run)
    found = answers(stored)
    pages = {"report.md": markdown_page(stored, found), "report.html": html_page(stored, found)}
    paths = []
    for name, text in pages.items():
        write_text(stored.folder / name, text)
        paths.append(stored.folder / name)
    return paths
