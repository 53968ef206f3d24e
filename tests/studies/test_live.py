"""While a study runs, report.html shows what is known so far; the finished report takes its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import SHORT, tiny_study, vitrim
from vitrim.report import live


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are written while the study runs."""
    written: list[str] = []
    write = live.write_text

    def record(path: Path, text: str) -> None:
        written.append(text)
        write(path, text)

    monkeypatch.setattr(live, "write_text", record)
    return written


def test_a_running_study_shows_its_slices_at_once_and_then_what_is_known(pages, tiny_data_once, tmp_path):
    file = tiny_study(tmp_path / "tiny.yaml", networks={"unetr2d": {}}, **SHORT)
    assert vitrim("study", file, "--data", tiny_data_once, "--out", tmp_path / "out", "--tries", 0) == 0
    first, last = pages[0], pages[-1]
    assert "Now: <b>train unetr2d, 12 blocks" in first
    assert "2D UNETR, 12 blocks" in first
    assert "bright" in first
    assert first.count('class="tile"') == 2
    assert "<figcaption><b>2D UNETR" not in first
    assert "Training loss" in last
    assert "Attention distance" in last
    assert all('http-equiv="refresh"' in page and "There is no verdict yet" in page for page in pages)
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "not finished" not in report
    assert "How many transformer blocks are enough?" in report
    assert not (tmp_path / "out" / "unfinished").exists()
    pages.clear()
    assert vitrim("study", file, "--data", tiny_data_once, "--out", tmp_path / "out", "--tries", 0) == 0
    assert not pages  # a finished study keeps its report


def test_a_stopped_study_says_so_and_a_page_that_fails_ends_nothing(
    pages, tiny_data_once, tmp_path, monkeypatch, capsys
):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file = tiny_study(tmp_path / "tiny.yaml", networks={"unetr2d": {}}, **SHORT)
    command = ("study", file, "--data", tiny_data_once, "--out", tmp_path / "out", "--tries", 0)
    with monkeypatch.context() as patch:
        patch.setattr("vitrim.studies.trial.evaluate_cases", stop)
        assert vitrim(*command) == 130
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "It stopped at" in page
    assert "refresh" not in page
    monkeypatch.setattr(live, "_charts", lambda *_: 1 / 0)
    assert vitrim(*command) == 0
    assert "note: the page of the running study cannot be written" in capsys.readouterr().out
    assert "How many transformer blocks" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
