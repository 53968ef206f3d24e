"""One scale and one palette for attention in page, PNG and PDF; text of charts that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure

from tests.report.conftest import Opened
from tests.report.test_browser import choose, start
from vitrim.attention.colour_scale import COLORMAP, TIMES_UNIFORM, scale_top, uniform_weight
from vitrim.attention.figures import draw_decision, draw_mosaic, draw_query, draw_scale
from vitrim.attention.maps import StoredMaps
from vitrim.report.images import ramp
from vitrim.report.run import read_run


def test_the_explorer_starts_with_one_scale_for_all_networks_blocks_and_slices(browser: Any, run: Path) -> None:
    one = Opened(browser, run / "report.html")
    page = one.page
    assert page.input_value("#explorer [name=scale]") == "one"
    ends = set()
    for network in ("0", "1", "2"):
        choose(page, network=network)
        for index in ("0", "2"):
            choose(page, slice=index)
            ends |= set(page.eval_on_selector_all(".thumb canvas", "all => all.map((c) => Number(c.dataset.top))"))
    assert ends == {scale_top(64)}
    one.context.close()


def test_the_scale_marks_uniform_attention(opened: Opened) -> None:
    page = opened.page
    start(page)
    choose(page, scale="one")
    bar, mark = page.locator(".pointing .bar").bounding_box(), page.locator("[data-part=mark]").bounding_box()
    place = (mark["x"] + mark["width"] / 2 - bar["x"]) / bar["width"]
    assert place == pytest.approx(uniform_weight(64) / scale_top(64), abs=0.01)
    assert "1.6 % for each of 64 patches" in page.inner_text("[data-part=uniform]")


def brightness(page: Any, block: int) -> float:
    """Return the mean of the lightest tenth of the pixels of a small picture."""
    script = """c => {
      const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', { willReadFrequently: true });
      copy.drawImage(c, 0, 0);
      const data = copy.getImageData(0, 0, c.width, c.height).data, sums = [];
      for (let i = 0; i < data.length; i += 4) sums.push((data[i] + data[i + 1] + data[i + 2]) / 3);
      const light = sums.sort((a, b) => b - a).slice(0, sums.length / 10);
      return light.reduce((sum, one) => sum + one, 0) / light.length;
    }"""
    return float(page.locator(".thumb canvas").nth(block - 1).evaluate(script))


def test_a_nearly_uniform_map_does_not_glow(opened: Opened) -> None:
    page = opened.page
    start(page)
    page.locator("#explorer [name=image]").uncheck()
    own = brightness(page, 12)
    choose(page, scale="one")
    assert "as uniform" in page.locator(".thumb").nth(11).inner_text()
    assert brightness(page, 12) < 0.85 * own
    assert brightness(page, 1) > 1.3 * brightness(page, 12)
    page.locator("#explorer [name=image]").check()


def test_page_and_figures_have_one_colour_map_and_one_scale(run: Path) -> None:
    stored = StoredMaps.load(run / "networks" / "cats2d" / "maps.npz")
    assert stored is not None
    drawn = Figure()
    axis, second = drawn.subplots(1, 2)
    draw_mosaic(stored.maps[0], stored.grid, axis)
    (image,) = axis.images
    assert image.get_cmap().name == COLORMAP
    assert image.get_clim() == (0, scale_top(64))
    assert np.array_equal(ramp()[[0, 255]], (colormaps[COLORMAP]([0, 255])[:, :3] * 255).round())
    draw_query(stored.image, {1: np.full((64, 64), 1 / 64)}, stored.grid, (0, 0), second)
    veil = np.asarray(second.images[1].get_array())
    assert veil[0, 0, :3].tolist() == pytest.approx(colormaps[COLORMAP](1 / TIMES_UNIFORM)[:3], abs=0.01)
    draw_scale(drawn, [axis], 64)
    assert [text.get_text() for text in drawn.axes[-1].get_yticklabels()] == ["0", "uniform", "4 × uniform"]


def test_blocks_as_uniform_are_marked_in_page_and_figure(opened: Opened, run: Path) -> None:
    (network, *_) = read_run(run).networks
    assert network.rule is not None
    uniform = [block.block for block in network.rule.blocks if block.uniform]
    assert uniform
    chart = opened.page.locator("#decision-transunet")
    rings = chart.locator("circle.ring")
    assert rings.count() == len(uniform)
    ring, dot = rings.first.bounding_box(), opened.page.locator("#decision-cats2d circle.dot").first.bounding_box()
    assert ring["width"] >= 10
    assert ring["width"] > 1.3 * dot["width"]
    assert opened.page.locator(".swatch.as-uniform").first.is_visible()
    axis = draw_decision(network.rule, Figure().subplots())
    marks = next(line for line in axis.lines if line.get_label() == "as uniform")
    assert marks.get_markersize() >= 6
    assert marks.get_zorder() > max(line.get_zorder() for line in axis.lines if line is not marks)


def test_globality_has_one_meaning_at_a_time(opened: Opened) -> None:
    page = opened.page
    start(page)
    assert "globality" not in page.inner_text("[data-part=words]").lower()
    head = page.locator(".patch-measures thead")
    assert head.inner_text().count("Globality") == 1
    assert "Globality of the block" in head.inner_text()
    choose(page, kind="rollout")
    assert "Globality of the rollout" in head.inner_text()
    assert head.inner_text().count("Globality") == 1


@pytest.mark.parametrize("width", [1400, 900, 390])
def test_text_in_charts_has_at_least_12_pixels(opened: Opened, width: int) -> None:
    page = opened.page
    with opened.seen(width):
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # opens all details
        sizes = page.eval_on_selector_all(
            "svg.chart",
            "all => all.flatMap((svg) => { const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;"
            "return [...svg.querySelectorAll('text')].map((t) => parseFloat(getComputedStyle(t).fontSize) * scale); })",
        )
        page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(sizes) > 100
    assert min(sizes) >= 12
