"""The notebooks of examples/ hold no outputs, and run from their first cell to their last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


def notebook(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    for cell in notebook(path).cells:
        assert not cell.get("outputs"), cell.source
        assert cell.get("execution_count") is None, cell.source


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    done = notebook(path)
    NotebookClient(done, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert "image/png" in {kind for output in results for kind in output.get("data", {})}  # it drew its figure
