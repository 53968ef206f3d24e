"""Several studies in one page and one LaTeX table."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.conftest import Opened
from tests.report.synthetic_run import make_run
from tests.support import vitrim
from vitrim.commands.report import write_report
from vitrim.errors import InputError
from vitrim.report.several_runs import answers_table, data_tables, read_runs

CLASSES = {"brain": ("CSF", "GM", "WM"), "heart": ("Myocardium", "Infarction")}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one study, and a study of other data in which 2D UNETR loses Dice."""
    root = tmp_path_factory.mktemp("several")
    small: dict[str, Any] = {"grid": (4, 4), "cases": 8, "heads": 0}
    first = make_run(root / "brain-0", ("transunet", "unetr2d"), CLASSES["brain"], name="brain", **small)
    second = Path(shutil.copytree(first, root / "brain-1"))
    for table in ("results", "cases", "cost", "history"):
        pd.read_csv(second / f"{table}.csv").assign(seed=1).to_csv(second / f"{table}.csv", index=False)
    heart = make_run(root / "heart", ("unetr2d",), CLASSES["heart"], name="heart", losing_dice=("unetr2d",), **small)
    (heart / "study.json").write_text(json.dumps({"study": {"name": "heart"}, "data": "1" * 12}))
    return [first, second, heart]


@pytest.fixture(scope="module")
def written(studies: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("comparison") / "new"
    return {path.name: path for path in write_report(*studies, out=out) if path.parent == out}


def test_studies_of_the_same_data_share_a_table_with_study_and_seed(studies: list[Path]) -> None:
    tables = data_tables(read_runs(studies))
    assert [title for title, _ in tables] == ["brain-0 and brain-1", "heart"]
    heads = [column.heading for column in tables[0][1].columns]
    assert heads[:8] == ["Model", "Study", "Seed", "Transformer blocks", "Data set size", "CSF", "GM", "WM"]
    assert len(tables[0][1].rows) == sum(len(pd.read_csv(study / "results.csv")) for study in studies[:2])
    assert {row[2].text for row in tables[0][1].rows} == {"0", "1"}
    assert [column.heading for column in tables[1][1].columns][:4] == [
        "Model", "Transformer blocks", "Data set size", "Myocardium",
    ]  # fmt: skip


def test_the_answers_of_all_studies_stand_in_one_table(studies: list[Path]) -> None:
    table = answers_table(read_runs(studies))
    rows = [[cell.text for cell in row] for row in table.rows]
    assert [row[:2] for row in rows] == [
        ["brain-0", "TransUNet"], ["brain-0", "2D UNETR"], ["brain-1", "TransUNet"], ["brain-1", "2D UNETR"],
        ["heart", "2D UNETR"],
    ]  # fmt: skip
    assert rows[0][2:4] == ["Keep 1 of 12 blocks", "enough, provisional"]
    assert rows[4][2:4] == ["Keep all 12 blocks", "not shown, Dice is lower with 3 blocks"]
    assert rows[4][4] == "−6.70"
    assert table.rows[4][3].tone == "bad"


def test_the_latex_table_is_one_with_the_columns_of_the_paper(written: dict[str, Path]) -> None:
    text = written["comparison.tex"].read_text(encoding="utf-8")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert text.count(r"\begin{tabular}") == 2
    heads = [line for line in text.splitlines() if line.startswith("Model")]
    assert heads[1] == (
        r"Model & Transformer blocks & Data set size & Myocardium & Infarction & Average Dice & \% Dice change "
        r"& \% parameters saved \\"
    )
    assert r"\textbf{heart}" in text


def test_the_page_and_the_markdown_hold_every_study(written: dict[str, Path]) -> None:
    assert set(written) == {"comparison.md", "comparison.tex", "comparison.html"}
    for name in ("comparison.md", "comparison.html"):
        text = written[name].read_text(encoding="utf-8").replace("\\", "")
        for words in ("3 studies compared", "brain-0", "brain-1", "heart", "Keep all 12 blocks", "Infarction"):
            assert words in text


@pytest.fixture(scope="module")
def compared(browser: Any, written: dict[str, Path]) -> Iterator[Opened]:
    one = Opened(browser, written["comparison.html"], explorer=False)
    yield one
    one.context.close()


def test_the_page_works_without_a_complaint_and_asks_for_nothing(compared: Opened) -> None:
    table = compared.page.get_by_role("table", name="Recommendation for every study and network")
    assert table.count() == 1
    table.locator("thead button", has_text="% Dice change").click()
    assert "heart" in table.locator("tbody tr").first.inner_text()
    assert compared.page.locator("#depth figure").count() == 5
    assert compared.errors == []
    assert compared.asked == []


@pytest.mark.parametrize("width", [390, 900, 1400])
def test_the_page_fits_its_width(compared: Opened, width: int) -> None:
    with compared.seen(width):
        assert compared.page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_that_are_no_text_of_the_page_stay_text(hostile: Path, studies: list[Path], tmp_path: Path) -> None:
    write_report(hostile, studies[2], out=tmp_path)
    text = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert not re.search(r"<img src=x|<script>alert", text)
    assert "<script>" not in (tmp_path / "comparison.md").read_text(encoding="utf-8")


def test_a_study_that_is_named_twice_is_refused(studies: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="named twice"):
        write_report(studies[0], studies[0].parent / "heart" / ".." / "brain-0", out=tmp_path)


def test_a_folder_for_one_study_is_refused(studies: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="out is for several studies"):
        write_report(studies[0], out=tmp_path)
    with pytest.raises(InputError, match="no study is named"):
        write_report()


def test_nothing_is_written_if_one_of_the_folders_holds_no_study(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    with pytest.raises(InputError, match="holds no finished study"):
        write_report(copy, tmp_path / "empty", out=tmp_path / "comparison")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    assert not (tmp_path / "comparison").exists()


def test_the_command_line_names_what_it_wrote(
    studies: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vitrim("report", studies[0], studies[2], "-o", tmp_path / "both") == 0
    assert (tmp_path / "both" / "comparison.html").is_file()
    assert "comparison.tex" in capsys.readouterr().out
