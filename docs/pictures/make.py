"""Make the pictures of the report for README.md and docs/report.md, from the folder of a study.

    vitrim study demo && python docs/pictures/make.py runs/demo

Needs `playwright` (pip install playwright) and Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent


def main(run: Path) -> None:
    found = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 860}, color_scheme="light")
        page.goto((run / "report.html").resolve().as_uri())
        page.screenshot(path=HERE / "report.png")
        page.wait_for_selector("#explorer[data-ready=yes]")
        page.select_option("[name=network]", label="2D UNETR")
        page.wait_for_selector("#explorer[data-state^='2D UNETR']")
        page.select_option("[name=block]", "2")
        page.check("[name=prediction]")
        page.wait_for_timeout(500)
        page.locator("#look").screenshot(path=HERE / "explorer.png")
        browser.close()
    for name in ("report.png", "explorer.png"):
        Image.open(HERE / name).convert("RGB").save(HERE / name, optimize=True)
        print(f"wrote {HERE / name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
