"""Tests of the tables: results as Markdown and LaTeX, and the comparison with the paper."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.report.conftest import HOSTILE
from tests.report.synthetic_run import make_run
from vitrim.commands.report import write_report
from vitrim.report.build import latex_tables
from vitrim.report.paper import comparison, paper_tables
from vitrim.report.rule_comparison import rules_table
from vitrim.report.run import Run, read_run
from vitrim.report.study_table import results_table
from vitrim.report.tables import Cell, Column, Table, latex, markdown, select, tex_escape, without_constants

SYNAPSE = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")


def study(folder: Path, name: str, classes: tuple[str, ...], **data: object) -> Run:
    make_run(folder, ("unetr2d",), classes, grid=(4, 4), cases=4, heads=0, name=name)
    (folder / "study.json").write_text(json.dumps({"study": {"name": name, "data": data}, "data": ""}))
    return read_run(folder)


def column(table: Table, heading: str) -> int:
    return [one.heading for one in table.columns].index(heading)


def test_the_table_is_results_csv_in_the_papers_words(small: Path) -> None:
    run = read_run(small)
    table = results_table(run)
    stored = pd.read_csv(small / "results.csv")
    assert [row[0].text for row in table.rows] == ["2D UNETR"] * len(stored)
    assert [row[column(table, "Transformer blocks")].value for row in table.rows] == stored["blocks"].tolist()
    for heading, name in (("Average Dice", "average_dice"), ("% parameters saved", "parameters_saved_percent")):
        values = [row[column(table, heading)].value for row in table.rows]
        assert values == pytest.approx([None if pd.isna(v) else v for v in stored[name]])


def test_the_seed_has_a_column_where_there_are_several(copy: Path) -> None:
    first = pd.read_csv(copy / "results.csv")
    pd.concat([first, first.assign(seed=1)]).to_csv(copy / "results.csv", index=False)
    assert "Seed" in [one.heading for one in results_table(read_run(copy)).columns]


def test_emidec_prints_the_other_convention_for_absent_classes_beside_ours(tmp_path: Path) -> None:
    run = study(tmp_path / "run", "emidec", ("Myocardium", "Infarction", "NoReflow"), layout="emidec")
    assert run.cases is not None
    rows = run.cases.query("blocks == 12 and `class` == 'NoReflow'")
    assert rows["dice"].isna().sum() == 1
    table = results_table(run)
    text = table.rows[0][column(table, "NoReflow")].text
    assert text == f"{rows['dice'].mean():.3f} (3 of 4; {rows['dice'].fillna(1).mean():.3f} if absent counts as 1)"


def test_markdown_keeps_hostile_text_in_its_cell() -> None:
    table = Table((Column("a|b"), Column("<b>")), ((Cell("x\ny|z"), Cell("<script>")),))
    assert markdown(table) == "| a\\|b | &lt;b&gt; |\n|---:|---:|\n| x y\\|z | &lt;script&gt; |\n"


def test_latex_escapes_everything_that_latex_would_obey() -> None:
    assert tex_escape("50 % & $x_1$ #2 {y} \\z ~^ −1") == (
        r"50 \% \& \$x\_1\$ \#2 \{y\} \textbackslash{}z \textasciitilde{}\textasciicircum{} $-$1"
    )


def test_latex_has_the_papers_columns_first_and_the_others_below(small: Path) -> None:
    text = latex(results_table(read_run(small)), "caption", "tab:x")
    first, second = text.split(r"\bottomrule")[:2]
    assert r"Average Dice & \% Dice change & \% parameters saved \\" in first
    assert "Multiply-adds" not in first
    assert "Multiply-adds" in second
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no LaTeX is installed (Debian: texlive-latex-recommended)"
)
def test_latex_compiles(tmp_path: Path) -> None:
    run = study(tmp_path / "run", "synapse", (*SYNAPSE, *HOSTILE), layout="synapse")
    packages = "\\usepackage{booktabs}\\usepackage{graphicx}\\usepackage[T1]{fontenc}"
    text = f"\\documentclass{{article}}{packages}\\begin{{document}}\n{latex_tables(run)}\n\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_papers_numbers_agree_with_its_own_equations() -> None:
    for name, table in paper_tables().items():
        full = {}
        for row in table["rows"]:
            assert len(row["dice"]) == len(table["classes"])
            if row["blocks"] == 12:
                full[row["model"]] = row["average_dice"]
            else:
                change = 100 * (row["average_dice"] - full[row["model"]]) / full[row["model"]]
                # The paper computed its changes before rounding Dice to three decimals.
                assert row["dice_change_percent"] == pytest.approx(change, abs=0.15), (name, row)


def test_a_study_of_the_papers_data_stands_beside_the_paper(tmp_path: Path) -> None:
    run = study(tmp_path / "run", "synapse", SYNAPSE, layout="synapse")
    table = comparison(run)
    assert table is not None
    ours, paper, difference = table.rows[:3]
    assert [row[2].text for row in (ours, paper, difference)] == ["this study", "paper", "difference"]
    place = column(table, "Kidney (L)")
    assert paper[place].text == "0.861"
    row = run.row("unetr2d", 12, 0)
    assert row is not None
    assert ours[place].value == row["dice_left kidney"]
    assert difference[place].value == pytest.approx(row["dice_left kidney"] - 0.861)
    assert any("10.1117/12.2652215" in note for note in table.notes)


@pytest.mark.parametrize(
    ("name", "data"), [("demo", {}), ("mine", {"layout": "synapse"}), ("synapse", {"phantom": {"kind": "abdomen"}})]
)
def test_other_studies_and_phantoms_do_not(tmp_path: Path, name: str, data: dict[str, object]) -> None:
    assert comparison(study(tmp_path / "run", name, SYNAPSE, **data)) is None


def test_a_depth_sweep_says_which_rule_was_right(copy: Path) -> None:
    chosen = (("attention", 1, "too few blocks"), ("influence", 4, "2 more than needed"), ("accuracy", 2, "right"))
    rows = [(rule, depth, 2, 3, verdict) for rule, depth, verdict in chosen]
    table = pd.DataFrame(rows, columns=["rule", "depth", "needed_low", "needed_high", "verdict"])
    head = {"network": "transunet", "seed": 0, "fold": 0, "margin_percent": 5.0}
    table.assign(**head, dice_change_percent=[-8.0, None, 0.5]).to_csv(copy / "rules.csv", index=False)
    write_report(copy)
    text = (copy / "report.md").read_text(encoding="utf-8")
    assert "## Chosen depth and needed depth" in text
    assert "| block influence (nine tenths) | 4 | 2 to 3 | not trained | 2 more than needed |" in text
    assert "Chosen depth and needed depth" in (copy / "report.html").read_text(encoding="utf-8")
    assert latex_tables(read_run(copy)).count(r"\begin{table}") == latex_tables(read_run(copy)).count(r"\end{table}")
    assert "too few blocks" in latex_tables(read_run(copy))


def test_a_study_that_is_no_sweep_says_nothing_of_rules(small: Path) -> None:
    assert rules_table(read_run(small)) is None


def test_an_undecided_verdict_says_how_many_cases_would_decide(copy: Path) -> None:
    path = copy / "results.csv"
    table = pd.read_csv(path)
    table["verdict_5"] = table["verdict_5"].where(table["verdict_5"].isna(), "undecided")
    table["cases_needed_5"] = table["verdict_5"].notna().map({True: 320, False: None})
    table["provisional"] = table["verdict_5"].notna()
    table.to_csv(path, index=False)
    assert "undecided (320 cases needed)" in markdown(results_table(read_run(copy)))
    assert "The verdicts are provisional" in latex_tables(read_run(copy))


def test_a_column_that_says_the_same_in_every_row_becomes_a_note() -> None:
    columns = (Column("Model", number=False), Column("Size"), Column("Empty"), Column("Dice"))
    rows = tuple((Cell("A"), Cell("240"), Cell("–"), Cell(dice)) for dice in ("0.9", "0.8"))
    found = without_constants(Table(columns, rows), keep=("Model",))
    assert [column.heading for column in found.columns] == ["Model", "Dice"]
    assert found.notes == ("Size: 240 in every row.",)
    assert [cell.text for cell in found.rows[1]] == ["A", "0.8"]


def test_chosen_columns_keep_their_cells() -> None:
    table = Table((Column("a"), Column("b"), Column("c")), ((Cell("1"), Cell("2"), Cell("3")),))
    assert [cell.text for cell in select(table, ["c", "nothing", "a"]).rows[0]] == ["3", "1"]
