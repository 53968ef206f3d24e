"""A study on a Ray cluster gives the same bytes as a study in one process, also if a process of the cluster dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_for
from tests.support import SHORT, tiny_study, vitrim

pytest.importorskip("ray", reason="Ray is not installed (pip install 'vitrim[ray]')")

SAME = ("results.csv", "trials.csv", "cases.csv", "history.csv")


def start(file: Path, data: Path, out: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from vitrim.cli import main; main()", "study", file, "--data", data, "--out", out,
         *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def progress(out: Path) -> dict[str, dict]:
    """Return the progress of each running training, by trial key."""
    found = {}
    for path in out.glob("unfinished/*/progress.json"):
        try:
            found[path.parent.name] = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
def test_a_cluster_that_loses_a_process_while_it_trains_ends_with_the_same_bytes(tiny_data_once, tmp_path):
    training = {"steps": 60, "batch_size": 4, "learning_rate": 1e-3}
    file = tiny_study(
        tmp_path / "tiny.yaml", networks={"unetr2d": {"depths": [3]}, "transunet": {"depths": [3]}},
        training=training, attention={"slices": 1, "maps": [1]},
    )  # fmt: skip
    alone = start(file, tiny_data_once, tmp_path / "alone")
    assert alone.wait(300) == 0
    out = tmp_path / "cluster"
    driver = start(file, tiny_data_once, out, "--ray")

    def in_the_middle() -> list[tuple[str, dict]]:
        return [
            (key, beat)
            for key, beat in progress(out).items()
            if (out / "unfinished" / key / "state.ckpt").is_file() and 5 < beat.get("step", 0) < 50
        ]

    wait_for(in_the_middle, 300)
    key, beat = in_the_middle()[0]
    assert beat["pid"] != driver.pid
    os.kill(beat["pid"], signal.SIGKILL)
    wait_for(lambda: progress(out).get(key, beat)["pid"] != beat["pid"], 120)
    assert progress(out)[key]["step"] > 5
    error = driver.communicate(timeout=400)[1]
    assert driver.returncode == 0, error
    for name in SAME:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_a_cluster_gives_the_same_bytes_as_one_process(tiny_data_once, tmp_path):
    file = tiny_study(tmp_path / "tiny.yaml", networks={"unetr2d": {}}, **SHORT)
    for name, options in {"alone": (), "cluster": ("--ray",)}.items():
        assert vitrim("study", file, "--data", tiny_data_once, "--out", tmp_path / name, *options) == 0
    for name in SAME:
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_a_cluster_that_is_not_there_is_refused_in_one_line(tiny_data_once, tmp_path, capsys):
    file = tiny_study(tmp_path / "tiny.yaml")
    assert vitrim("study", file, "--data", tiny_data_once, "--ray", "localhost:1", "--out", tmp_path / "o") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("vitrim: no Ray cluster at localhost:1")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()
