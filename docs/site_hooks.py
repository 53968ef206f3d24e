"""What MkDocs needs beside docs/: pages and files of the repository's root, and a look at what a built page fetches.

README.md is the first page of the site. Links are written for the repository, where they lead from a file to a file.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^\s"'>]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|icon|preconnect))[^>]*\bhref=["']?(?:https?:)?//[^\s"'>]+"""
    r"""|(?:url\(|@import )["']?(?:https?:)?//[^\s"')]+""",
    re.IGNORECASE,
)


def linked_from_the_site(page: str, text: str) -> str:
    """The Markdown of a page of the repository, with its links as they are in the site."""
    if page in PAGES:
        text = re.sub(r"\]\(docs/", "](", text)
    for source, target in PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}(?=[)#])", f"]({target}", text)
    return re.sub(r"\]\(\.\./(?=examples/|LICENSE|CITATION)", "](", text)


def bars_in_code(row: str) -> str:
    """A row of a table with `a|b` in place of `a\\|b`: GitHub needs the backslash in code, Python-Markdown shows it."""
    return re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), row)


def fetched(page: str) -> list[str]:
    """The tags and rules of a built page, style or script that make a browser fetch from another machine."""
    return FETCHED.findall(page)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=linked_from_the_site(source, text)))
    for path in [*sorted((ROOT / "examples").iterdir()), ROOT / "LICENSE", ROOT / "CITATION.cff"]:
        if path.is_file():
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    rows = [bars_in_code(line) if line.startswith("|") else line for line in markdown.split("\n")]
    return linked_from_the_site("", "\n".join(rows))


def on_post_build(config: MkDocsConfig) -> None:
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in {".html", ".css"} and (found := fetched(path.read_text(encoding="utf-8"))):
            raise PluginError(f"{path} fetches from another machine: {found[0]}")
