"""docs/architecture.md names every module once, imports point one way, and module names are unique."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from vitrim.attention.measures import MEASURES
from vitrim.compression.depth_rules import RULES
from vitrim.config import names
from vitrim.data.phantoms.make import KINDS, LAYOUTS
from vitrim.models.factory import NETWORKS
from vitrim.models.vit import SIZES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/vitrim"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def named_modules() -> list[Path]:
    """The modules that the page lists, with the room under whose heading they stand."""
    found, room = [], Path()
    for line in (ROOT / "docs/architecture.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"### (?:`([\w/]+)/`)?", line):
            room = Path(heading[1] or "")
        elif entry := re.match(r"- `(\w+\.py)`: ", line):
            found.append(room / entry[1])
    return found


def test_the_page_names_every_module_once() -> None:
    rooms = {path for path in MODULES if path.name != "__init__.py" or path == Path("__init__.py")}
    assert Counter(named_modules()) == Counter(rooms)


def test_every_path_in_the_page_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_0-9]+/[a-z_0-9/.]+\.(?:py|html))`", page):
        assert (PACKAGE / path).is_file() or (ROOT / path).is_file(), path


def test_few_modules_lie_at_the_root() -> None:
    assert len([path for path in MODULES if path.parent == Path()]) <= 7


def test_no_two_modules_have_the_same_name_but_a_command_and_its_command_line() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            places.setdefault(path.stem, []).append(str(path.parent))
    twice = {name: rooms for name, rooms in places.items() if len(rooms) > 1}
    assert twice
    assert all(rooms == ["cli", "commands"] for rooms in twice.values()), twice


def test_no_file_is_very_long() -> None:
    lengths = {path: len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert max(lengths.values()) < 350, {path: lines for path, lines in lengths.items() if lines >= 350}


def test_imports_point_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


@pytest.mark.parametrize(
    ("literal", "known"),
    [
        (names.NetworkName, NETWORKS),
        (names.NetworkName, names.NETWORK_TITLES),
        (names.ViTSizeName, SIZES),
        (names.RuleName, RULES),
        (names.PhantomName, KINDS),
    ],
)
def test_a_name_that_a_user_may_type_has_what_it_names(literal: object, known: dict[str, object]) -> None:
    assert set(get_args(literal)) == set(known)


def test_every_measure_that_may_decide_exists() -> None:
    assert set(get_args(names.DecidingMeasure)) <= set(MEASURES)
    assert {layout for layouts in LAYOUTS.values() for layout in layouts} == set(get_args(names.PhantomLayout))
