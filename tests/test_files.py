"""Files appear whole or not at all; what killed processes left is removed; text is never a formula or a command."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pandas as pd
import pytest

from vitrim import files
from vitrim.errors import InputError, printable
from vitrim.files import parse_json, read_table, replacing, understood, write_table, write_text


def write_for_ever(path: Path, begun: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    with replacing(path) as temporary:
        temporary.write_text("half")
        begun.set()
        signal.pause()


def test_what_a_killed_process_left_goes_and_what_another_is_writing_stays(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    processes = []
    for name in ("killed.txt", "writing.txt"):
        begun = context.Event()
        processes.append(context.Process(target=write_for_ever, args=(tmp_path / name, begun)))
        processes[-1].start()
        assert begun.wait(20)
    killed, writing = processes
    killed.kill()
    killed.join()
    assert len(list(tmp_path.glob(".killed.txt.*.part"))) == 1
    monkeypatch.setattr(files, "_swept", set())  # as in a new process
    write_text(tmp_path / "mine.txt", "whole")
    assert not list(tmp_path.glob(".killed*"))
    assert len(list(tmp_path.glob(".writing.txt.*"))) == 2  # the part and its lock
    writing.kill()
    writing.join()
    monkeypatch.setattr(files, "_swept", set())
    write_text(tmp_path / "mine.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / ("é" * 120 + ".txt")
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_a_cell_of_text_is_no_formula_and_comes_back_as_it_was(tmp_path):
    names = ["=1+1", "+case", "-1", "@x", "'=quoted", "'plain", "plain", "NA", ""]
    table = pd.DataFrame({"case": names, "dice": range(len(names)), "blocks": -1})
    write_table(tmp_path / "cases.csv", table)
    for line in (tmp_path / "cases.csv").read_text().splitlines()[1:]:
        assert not line.startswith(("=", "+", "-", "@"))
    found = read_table(tmp_path / "cases.csv")
    assert found["case"].fillna("").tolist() == names
    assert found["blocks"].tolist() == [-1] * len(names)


def test_control_characters_of_a_file_do_not_reach_the_terminal():
    assert printable("a\x1b[31mb\u202ec\x9bd") == "a\\x1b[31mb\\u202ec\\x9bd"
    assert printable("Größe ≥ 3 µm\n") == "Größe ≥ 3 µm\n"
    assert "\x1b" not in str(InputError("case \x1b[2J"))


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "\udcff", "nul", ""])
def test_anything_that_is_not_json_is_one_line(text, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as refusal:
        parse_json(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_whatever_a_damaged_folder_raises_is_one_error(tmp_path):
    with (
        pytest.raises(InputError, match=r"does not hold what vitrim writes there \(division by zero\)"),
        understood("x"),
    ):
        _ = 1 / 0
    with pytest.raises(MemoryError), understood("x"):
        raise MemoryError
