"""The documentation speaks of what is there: the public names, the messages, and a site that fetches nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import vitrim as package

ROOT = Path(__file__).resolve().parents[1]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def module(path: Path) -> ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_of_the_api_has_every_public_name_once() -> None:
    assert sorted(re.findall(r"^::: vitrim\.(\w+)$", page("api.md"), re.M)) == sorted(package.__all__)


def test_the_readme_fits_on_a_screen_and_leads_to_pages_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_on_a_package_index_the_readme_has_absolute_addresses_alone() -> None:
    absolute = module(ROOT / ".github/absolute_links.py").absolute
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = absolute(text, "https://example.org/owner/vitrim", "v1")
    assert "![The report of the demo](https://example.org/owner/vitrim/raw/v1/docs/pictures/report.png)" in made
    assert "(https://example.org/owner/vitrim/blob/v1/docs/depth.md)" in made
    assert "(https://doi.org/10.1117/12.2652215)" in made
    assert not re.findall(r"\]\((?!https?:)", made)
    assert len(re.findall(r"\]\(", made)) == len(re.findall(r"\]\(", text))


def test_every_message_of_the_troubleshooting_page_is_one_of_vitrims() -> None:
    """A message is quoted with … for what differs; each part between is in the source."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/vitrim").rglob("*.py"))
    source = re.sub(r"\"\n\s*f?\"", "", source)  # one text over several lines
    source = re.sub(r"\{[^{}\n]*\}", "{}", source)
    messages = re.findall(r"^\| `([^`]+)`", page("troubleshooting.md"), re.M)
    assert len(messages) > 30
    parts = [part.strip() for message in messages for part in re.split("…", message)]
    assert [part for part in parts if len(part) > 8 and part not in source] == []


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    return module(ROOT / "docs/site_hooks.py")


@pytest.mark.parametrize(
    ("text", "fetches"),
    [
        ('<script src="https://cdn.example/a.js"></script>', True),
        ("<script async src=//cdn.example/a.js></script>", True),
        ('<link rel="stylesheet" href="https://fonts.example/css">', True),
        ('<link href="https://fonts.example" rel="preconnect">', True),
        ("@font-face { src: url(https://fonts.example/a.woff2) }", True),
        ('<img alt="x" src="https://example.org/x.png">', True),
        ('<script src="../assets/a.js"></script><link rel="stylesheet" href="assets/a.css">', False),
        ('<a href="https://doi.org/10.1117/12.2652215">the paper</a>', False),
        ('<link rel="canonical" href="https://example.org/">', False),
    ],
)
def test_a_page_that_fetches_from_another_machine_is_noticed(hooks: ModuleType, text: str, fetches: bool) -> None:
    assert bool(hooks.fetched(text)) == fetches


def test_links_of_the_repository_lead_to_pages_of_the_site(hooks: ModuleType) -> None:
    text = "[a](docs/depth.md#x) [b](CONTRIBUTING.md) [c](docs/pictures/r.png) [d](examples/attention.ipynb)"
    expected = "[a](depth.md#x) [b](CONTRIBUTING.md) [c](pictures/r.png) [d](examples/attention.ipynb)"
    assert hooks.linked_from_the_site("README.md", text) == expected
    assert hooks.linked_from_the_site("study.md", "[a](../README.md) [b](../examples/chain.yaml)") == (
        "[a](index.md) [b](examples/chain.yaml)"
    )


def test_a_bar_in_code_in_a_table_needs_no_backslash_in_the_site(hooks: ModuleType) -> None:
    assert hooks.on_page_markdown("| `a\\|b` | c |\n\n`d\\|e`", None) == "| `a|b` | c |\n\n`d\\|e`"
