"""Tests of the whole report: its contents, written from stored files only."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report.conftest import HOSTILE
from vitrim.commands.report import write_report
from vitrim.errors import InputError


class Parsed(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def markdown(run: Path) -> str:
    return (run / "report.md").read_text(encoding="utf-8")


def test_the_report_says_how_many_blocks_are_needed_what_that_saves_and_what_it_costs(run: Path) -> None:
    row = pd.read_csv(run / "results.csv").query("network == 'cats2d' and blocks == 3").iloc[0]
    for text in (markdown(run), Parsed(html(run)).text):
        text = " ".join(text.replace("\\", "").split())
        assert "3 of 12 blocks are enough for 2D CATS; whether fewer are was not shown." in text
        assert f"saves {row['parameters_saved_percent']:.1f} % of the parameters" in text
        assert " ms." not in text  # times of different hours are not compared in a sentence
        assert f"{abs(row['dice_change_percent']):.2f} % (95 % interval" in text
        assert "not worse by more than 5 % and undecided at a margin of 1 %" in text


def test_uniform_attention_is_said_to_say_nothing(run: Path) -> None:
    for text in (markdown(run), html(run)):
        assert "In every block the attention of TransUNet is nearly uniform" in text
        assert "says nothing about what this network learned" in text


def test_the_report_says_what_attention_does_in_each_block(run: Path) -> None:
    text = " ".join(Parsed(html(run)).text.split())
    assert "What attention does in each block" in text
    assert (
        "Blocks 1 to 2 look by content. Block 3 looks at fixed places, the same in every image. "
        "Blocks 4 to 12 do nothing that Dice needs."
    ) in text


def test_the_table_has_the_papers_columns_in_the_papers_order(run: Path) -> None:
    head = next(line for line in markdown(run).splitlines() if line.startswith("| Model"))
    assert head.startswith(
        "| Model | Transformer blocks | Data set size | liver | spleen | left kidney | aorta | Average Dice "
        "| % Dice change | % parameters saved |"
    )


def test_a_class_that_not_every_case_has_shows_how_many_were_counted(run: Path) -> None:
    assert re.search(r"0\.\d{3} \(7 of 8\)", markdown(run))


def test_the_page_needs_nothing_but_itself(run: Path) -> None:
    page = Parsed(html(run))
    assert {address.split(":")[0] for address in page.addresses if not address.startswith("#")} == {"data"}
    assert "@import" not in html(run)
    assert not re.search(r"url\((?!data:)", html(run))


def test_names_from_the_data_are_text(hostile: Path) -> None:
    page = Parsed(html(hostile))
    assert page.tags.count("script") == 2  # the script of the page, and the data of the explorer
    assert all(name in page.text for name in HOSTILE)
    assert "<script>" not in markdown(hostile)


def test_the_same_run_gives_the_same_report(copy: Path) -> None:
    texts = []
    for _ in range(2):
        texts.append([path.read_bytes() for path in write_report(copy)])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("missing", ["cost.csv", "history.csv", "examples.npz", "networks", "config.yaml", "cases.csv"])
def test_a_run_without_one_of_its_files_still_has_a_report(copy: Path, missing: str) -> None:
    shutil.rmtree(copy / missing) if (copy / missing).is_dir() else (copy / missing).unlink()
    write_report(copy)
    assert "Every network" in html(copy)


def test_augmented_slices_are_shown_as_bright_as_the_slice_itself(copy: Path) -> None:
    y, x = np.mgrid[:32, :32]
    image, label = (x + y).astype(np.float32), np.zeros((32, 32), np.uint8)
    changed = np.stack([image, image * 0.5])[None]
    np.savez(
        copy / "augmented.npz",
        case=np.array(["case"]), slice=np.array([3]), image=image[None], label=label[None],
        changed_image=changed, changed_label=np.stack([label, label])[None],
    )  # fmt: skip
    write_report(copy)
    section = html(copy).split('<section id="augmentation"')[1].split("</section>")[0]
    plain, same, darker = re.findall(r"--image: url\((data:[^)]+)\)", section)
    assert "case, slice 3" in section
    assert plain == same
    assert plain != darker


def test_a_folder_without_a_study_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no finished study.*results\.csv"):
        write_report(tmp_path)


def test_a_table_that_is_none_is_refused(copy: Path) -> None:
    (copy / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"lacks network, blocks"):
        write_report(copy)


def test_a_broken_array_file_is_refused(copy: Path) -> None:
    (copy / "examples.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"examples\.npz cannot be read"):
        write_report(copy)


@pytest.mark.parametrize("study", ["run", "hostile"])
def test_the_page_is_html_without_parse_errors(study: str, request: pytest.FixtureRequest) -> None:
    html5lib = pytest.importorskip("html5lib", reason="html5lib is not installed (pip install html5lib)")
    html5lib.HTMLParser(strict=True).parse(html(request.getfixturevalue(study)))


def test_the_page_stays_under_its_limit(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    write_report(copy)
    limit = (copy / "report.html").stat().st_size
    monkeypatch.setattr("vitrim.report.html_page.LIMIT", limit)
    write_report(copy)
    assert (copy / "report.html").stat().st_size <= limit
    assert "left out for size" in html(copy)
