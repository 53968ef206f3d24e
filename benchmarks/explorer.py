"""Response time of the attention explorer in the report, and size of a page for a study of the paper's size.

    python benchmarks/explorer.py

The benchmark makes a page for three networks of 12 blocks, 12 heads and 14 × 14 patches. Their attention is as hard to
compress as noise. It opens the page in Chromium and moves the patch with the arrow keys, ten times in each view. It
prints the size of the page and the milliseconds. The limits are 15 MB and 50 ms. It needs `playwright` and Debian's
`chromium`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import sync_playwright
from tests.report.conftest import QUIET, Opened
from tests.report.synthetic_run import make_run

from vitrim.commands.report import write_report

ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")


def moved(page: object, keys: list[str]) -> list[float]:
    """Press each key and return the milliseconds that the page needed for it."""
    taken = []
    page.locator("[data-part=big]").focus()  # type: ignore[attr-defined]
    for key in keys:
        page.keyboard.press(key)  # type: ignore[attr-defined]
        taken.append(float(page.get_attribute("#explorer", "data-milliseconds")))  # type: ignore[attr-defined]
    return taken


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        depths = {"transunet": (3, 1), "cats2d": (3,), "unetr2d": (3,)}
        run = make_run(
            Path(folder) / "run", classes=ORGANS, grid=(14, 14), depths=depths, uniform=(), cases=12, heads=12
        )
        report = next(path for path in write_report(run) if path.suffix == ".html")
        print(f"page of three networks: {report.stat().st_size / 1e6:.1f} MB (limit: 15)")
        names = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
        path = next(name for name in names if Path(name).exists())
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        page = Opened(browser, report).page
        for name, controls in (
            ("one patch, average of the heads", {"head": "0"}),
            ("one patch, one head", {"head": "7"}),
            ("one patch, rollout", {"kind": "rollout"}),
        ):
            for control, value in controls.items():
                page.select_option(f"[name={control}]", value)
            changed = float(page.get_attribute("#explorer", "data-milliseconds"))
            page.wait_for_timeout(1000)
            taken = moved(page, ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "PageDown"] * 2)
            print(f"{name}: median {median(taken):.1f} ms, worst {max(taken):.1f} (limit: 50); change {changed:.0f} ms")
        page.select_option("[name=kind]", "attention")
        page.select_option("[name=view]", "mosaic")
        print(f"mosaic of four blocks: {float(page.get_attribute('#explorer', 'data-milliseconds')):.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
