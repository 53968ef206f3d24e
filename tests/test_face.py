"""The package's face: fast to import, visible to type checkers, and every example in it runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from monai.networks.nets import UNETR
from rich.console import Console

import vitrim as package
from tests.support import make_checkpoint, tiny_study, write_checkpoint
from vitrim.models.network import Network

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("code", ["import vitrim", "import vitrim.cli", "import vitrim.config.reading"])
def test_importing_does_not_import_torch(code: str) -> None:
    check = f"{code}; import sys; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_public_names_are_there() -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = package.crop  # type: ignore[attr-defined]


LIBRARIES = ["torch", "numpy", "pandas", "timm", "monai", "nibabel", "h5py", "scipy", "safetensors", "lightning"]
LIBRARIES += ["matplotlib", "ray", "pydantic", "huggingface_hub", "PIL", "rich", "jinja2", "typer", "yaml"]


@pytest.mark.parametrize("skipped", [LIBRARIES, pytest.param([], marks=pytest.mark.slow)], ids=["alone", "libraries"])
def test_a_type_checker_sees_the_public_names(skipped: list[str], tmp_path: Path) -> None:
    """In a user's code, a misspelt name and an argument of the wrong type are errors, and right code is none.

    The types of vitrim are read in either form. Reading those of the libraries too takes forty times as long.
    """
    section = f"[mypy-{','.join(f'{name}.*' for name in skipped)}]\nfollow_imports = skip\n" if skipped else ""
    (tmp_path / "mypy.ini").write_text(f"[mypy]\n{section}")
    (tmp_path / "right.py").write_text(
        "import vitrim\n"
        'network = vitrim.create_model("transunet", num_classes=9)\n'
        "depth: int = vitrim.truncate(network, 3).depth\n"
        'vitrim.evaluate("network", "data", "out", cases="all")\n'
    )
    (tmp_path / "wrong.py").write_text(
        "import vitrim\n"
        "vitrim.adpat\n"
        'vitrim.create_model("transunet", num_classes="nine")\n'
        'vitrim.create_model("transnet", num_classes=9)\n'
        'vitrim.evaluate("network", "data", "out", cases="some")\n'
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--follow-imports=silent", "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = [line.split(":")[:2] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == [["wrong.py", str(number)] for number in (2, 3, 4, 5)], done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole_desk(tiny_data_once: Path, finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: a data set, a study, a finished run, checkpoints. Read only."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(tiny_data_once, folder / "data")
    shutil.copytree(finished_study, folder / "run")
    tiny_study(folder / "tiny.yaml")
    write_checkpoint(folder / "network")
    make_checkpoint(folder / "transunet")
    torch.manual_seed(0)
    torch.save(a_unetr().state_dict(), folder / "unetr.pth")
    return folder


@pytest.fixture
def desk(tmp_path: Path, whole_desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(whole_desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_has_an_example_that_runs(name: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = getattr(package, name)
    monkeypatch.setattr("vitrim.progress.Console", lambda **_: Console(quiet=True))  # examples do not show progress
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={"vitrim": package})
    assert any(test.examples for test in found), f"vitrim.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in found:
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def snippets() -> list[tuple[str, str]]:
    """Every Python snippet of README and docs, with the page and its number there."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [
        (f"{page.name}-{number}", code)
        for page in pages
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S), 1)
    ]


class Slices(torch.utils.data.Dataset):
    """Slices of noise with their labels, as `vitrim.recover` takes them."""

    def __init__(self, size: int, classes: int) -> None:
        self.size, self.classes = size, classes

    def __len__(self) -> int:
        return 8

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(item)
        image = torch.randn(3, self.size, self.size, generator=generator)
        return {"image": image, "label": (image[0] > 0).long() % self.classes}


def a_unetr() -> torch.nn.Module:
    """MONAI's UNETR, small, for the tiny study."""
    sizes = {"img_size": 64, "hidden_size": 16, "mlp_dim": 16, "num_heads": 2, "feature_size": 4}
    return UNETR(in_channels=1, out_channels=3, spatial_dims=2, **sizes)


def another_model() -> torch.nn.Module:
    """A model of another library, small."""
    return timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=48, num_heads=3, depth=4)


def small(*arguments: object, **options: object) -> Network:
    """`vitrim.create_model` with a network that is small and quick in place of one of full size."""
    size = {"vit": "test_vit"} if "vit" in options else {"size": "micro"}
    return package.create_model(*arguments, **{**options, **size, "width": 0.25, "image_size": 32})  # type: ignore[arg-type]


@pytest.mark.parametrize(("page", "code"), snippets(), ids=[page for page, _ in snippets()])
def test_every_snippet_of_the_documentation_runs(
    page: str, code: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, but for the size of the networks; `images`, `data` and `network` are what the text says."""
    torch.manual_seed(0)
    names = {name: getattr(package, name) for name in package.__all__}
    face = SimpleNamespace(**{**names, "create_model": small})
    network = small("transunet", num_classes=9)
    given: dict[str, Any] = {"images": torch.randn(5, 3, 32, 32), "network": network, "data": Slices(32, 9)}
    given |= {"vitrim": face, "model": another_model(), "build_the_model": another_model, "build_unetr": a_unetr}
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if ast.unparse(node) != "import vitrim"]
    exec(compile(ast.fix_missing_locations(tree), page, "exec"), given)


def test_a_public_function_says_what_it_raises_or_returns() -> None:
    for name in package.__all__:
        public = getattr(package, name)
        assert inspect.getdoc(public), name
        assert importlib.import_module(public.__module__).__doc__, public.__module__
