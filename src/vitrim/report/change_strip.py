"""A small chart on each card: the change in Dice with its interval, beside 0 and the margin."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vitrim.compression.depth_decision import DepthResult
from vitrim.report.answers import Answer
from vitrim.report.formatting import interval_text, signed
from vitrim.report.svg import element, join

WIDTH, HEIGHT, MIDDLE = 320, 44, 14
EDGE = 22
"""Space for half a number on either side."""
LIMIT = 30.0
"""Largest change in percent on the scale. What lies beyond is drawn at its end."""


def change_strips(found: Sequence[Answer]) -> list[Markup]:
    """Return one chart per answer, all on one scale; empty where no smaller network was judged."""
    margins = [100 * answer.network.margin for answer in found]
    results = [answer.result for answer in found if answer.result is not None]
    ends = [end for result in results for end in (result.percent, result.low, result.high) if end is not None]
    low, high = min([*ends, *(-1.3 * margin for margin in margins)]), max([*ends, 1.0])
    low, high = max(low, -LIMIT), min(high, LIMIT)
    return [
        Markup("") if answer.result is None else _strip(answer.result, margin, (low, high))
        for answer, margin in zip(found, margins, strict=True)
    ]


def _strip(result: DepthResult, margin: float, ends: tuple[float, float]) -> Markup:
    def x(percent: float) -> float:
        share = min(1.0, max(0.0, (percent - ends[0]) / (ends[1] - ends[0])))
        return round(EDGE + share * (WIDTH - 2 * EDGE), 2)

    parts = [element("line", x1=EDGE, x2=WIDTH - EDGE, y1=MIDDLE, y2=MIDDLE, class_="grid")]
    for percent, style, text in ((0.0, "axis", "0"), (-margin, "threshold", f"−{margin:g} %")):
        parts.append(element("line", x1=x(percent), x2=x(percent), y1=2, y2=2 * MIDDLE - 2, class_=style))
        parts.append(element("text", text, x=x(percent), y=HEIGHT - 3, text_anchor="middle", class_=f"{style}-text"))
    words = f"Change in Dice {signed(result.percent, 1)} %"
    if result.low is not None and result.high is not None:
        parts.append(element("line", x1=x(result.low), x2=x(result.high), y1=MIDDLE, y2=MIDDLE, class_="span"))
        words += f", 95 % interval {interval_text(result.low, result.high, 1)} %"
    parts.append(element("circle", cx=x(result.percent), cy=MIDDLE, r=5, class_="point"))
    label = f"{words}; margin −{margin:g} %"
    return element("svg", join(parts), viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="chart strip-chart", role="img",
                   aria_label=label)  # fmt: skip
