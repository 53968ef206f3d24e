"""Two containers share a disk. Their processes have the same number, and neither sees those of the other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc"]
"""What separates the processes of a container from others."""

WRITER = """
import os, sys, time
from pathlib import Path
from vitrim.files import replacing
folder = Path(sys.argv[1])
with replacing(folder / "large.txt") as temporary:
    temporary.write_text("half")
    (folder / "number").write_text(str(os.getpid()))
    while not (folder / "go on").exists():
        time.sleep(0.02)
    temporary.write_text("whole")
"""

OTHER = """
import os, sys
from pathlib import Path
from vitrim.files import write_text
write_text(Path(sys.argv[1]) / "other.txt", str(os.getpid()))
"""


def _containers() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _containers(), reason="needs the right to make namespaces (unshare)")


def start_writer(folder: Path) -> subprocess.Popen[bytes]:
    """Start a container whose only process is in the middle of writing large.txt."""
    process = subprocess.Popen([*CONTAINER, sys.executable, "-c", WRITER, str(folder)], start_new_session=True)
    while not (folder / "number").exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def run_other(folder: Path) -> None:
    """Let another container write another file into the same folder."""
    subprocess.run([*CONTAINER, sys.executable, "-c", OTHER, str(folder)], check=True)
    assert (folder / "other.txt").read_text() == (folder / "number").read_text() == "1"


def unfinished(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_another_container_writes_stays(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    try:
        run_other(tmp_path)
        assert len(unfinished(tmp_path)) == 2  # the part and its lock
        (tmp_path / "go on").touch()
        assert writer.wait(timeout=30) == 0
    finally:
        if writer.poll() is None:
            os.killpg(writer.pid, signal.SIGKILL)
    assert (tmp_path / "large.txt").read_text() == "whole"
    assert unfinished(tmp_path) == []


def test_what_a_killed_container_left_is_removed_by_the_next(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    os.killpg(writer.pid, signal.SIGKILL)
    writer.wait(timeout=30)
    (lock,) = tmp_path.glob(".*.lock")
    with FileLock(lock, timeout=30):  # the kernel ends the processes of the namespace a little later
        assert len(unfinished(tmp_path)) == 2
    run_other(tmp_path)
    assert unfinished(tmp_path) == []
    assert not (tmp_path / "large.txt").exists()
