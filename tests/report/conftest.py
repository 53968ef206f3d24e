"""Study folders for the tests of the report, made once per session, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.report.synthetic_run import make_run
from vitrim.commands.report import write_report

HOSTILE = ("<script>alert(1)</script>", 'a|b & $c_d$ "e"', "NA", "aorta")
"""Class names that a data set may have. They must be shown as text."""

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Browser arguments: start without sandbox and GPU, and send no network requests in the background."""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished study of three networks, with its report. 2D UNETR loses Dice when it is truncated.

    Made once for all workers. Read only: copy it before you change it.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    folder = shared / "report" / "demo"
    with FileLock(shared / "report.lock"):
        if not (folder / "report.html").is_file():
            make_run(folder, losing_dice=("unetr2d",))
            write_report(folder)
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one network on 4 × 4 patches, without its report."""
    folder = tmp_path_factory.mktemp("report") / "small"
    return make_run(folder, ("unetr2d",), ("aorta", "liver"), grid=(4, 4), cases=4, heads=2)


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A copy of the small study that a test may change."""
    return Path(shutil.copytree(small, tmp_path / "copy"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study whose names contain HTML, Markdown and LaTeX characters, with its report."""
    folder = tmp_path_factory.mktemp("report") / "hostile"
    make_run(
        folder, ("transunet",), HOSTILE, grid=(4, 4), cases=4, heads=2, name="a</title><img src=x onerror=alert(2)>"
    )
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (pip install playwright)"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=list(QUIET))
        yield opened
        opened.close()


class Opened:
    """A page in the browser, with its console errors, dialogs and network requests."""

    def __init__(self, browser: Any, report: Path, explorer: bool = True, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type != "log" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = report.as_uri()
        self.page.goto(self.address)
        if explorer:
            self.page.wait_for_selector("#explorer[data-ready=yes]", timeout=60_000)

    @contextmanager
    def seen(self, width: int = 1280, scheme: str = "light") -> Iterator[Opened]:
        """Show the page in another width or in other colours, and go back at the end."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)
        yield self
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.emulate_media(color_scheme="light")

    @property
    def asked(self) -> list[str]:
        """Network requests except those for the page and for data in it."""
        return [url for url in self.requests if url != self.address and not url.startswith(("data:", "blob:"))]


@pytest.fixture(scope="session")
def opened(browser: Any, run: Path) -> Iterator[Opened]:
    """The open report of three networks, shared by many tests; each test sets the controls that it needs."""
    one = Opened(browser, run / "report.html")
    yield one
    one.context.close()
