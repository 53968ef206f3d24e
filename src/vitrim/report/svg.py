"""Line charts as SVG text; colours come from the page's style sheet, so that they follow light, dark and print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator


def element(name: str, content: Any = "", **attributes: Any) -> Markup:
    """An SVG element; `class_` is class, `stroke_width` is stroke-width; everything is escaped but Markup."""
    text = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{text}>{escape(content)}</{name}>")


def join(parts: Sequence[Markup]) -> Markup:
    """Several elements as one."""
    return Markup("").join(parts)


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y), the CSS class that colours it, its name, and the two sides of a band around it."""

    points: Sequence[tuple[float, float]]
    style: str
    name: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = False


@dataclass(frozen=True)
class Frame:
    """The plotting area: ranges of both axes, size in user units."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 290
    height: int = 185
    left: int = 40
    right: int = 12
    top: int = 10
    bottom: int = 34

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point in user units, kept inside the frame vertically."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = min(1.0, max(0.0, (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)))
        return (
            round(self.left + across * (self.width - self.left - self.right), 2),
            round(self.height - self.bottom - up * (self.height - self.top - self.bottom), 2),
        )


def framed(x: tuple[float, float], y: tuple[float, float], large: bool = False) -> Frame:
    """A frame with room on the left for the numbers of its axis."""
    left = max(34, 10 + round(6.3 * max(len(f"{value:g}") for value in ticks(*y))))
    return Frame(x, y, 460, 240, left=left) if large else Frame(x, y, left=left)


def nice_range(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float]:
    """Ends of an axis that hold all values, with fixed ends where given."""
    known = [value for value in values if isfinite(value)] or [0.0, 1.0]
    bottom = min(known) if low is None else min(low, *known)
    top = max(known) if high is None else max(high, *known)
    space = (top - bottom or abs(top) or 1.0) * 0.08
    return (bottom - space if low is None else bottom, top + space if high is None else top)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two ends, at most `count` steps apart."""
    values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    space = (high - low) * 1e-9
    return [round(float(value), 10) + 0.0 for value in values if low - space <= value <= high + space]


def chart(
    frame: Frame,
    lines: Sequence[Line],
    label: str,
    x_label: str,
    x_ticks: Sequence[float] | None = None,
    under: Sequence[Markup] = (),
    over: Sequence[Markup] = (),
    name: str = "",
) -> Markup:
    """A chart with axes, `under` below and `over` above its lines.

    A screen reader says `label`. With a `name`, its id, the chart carries its frame for the page's script.
    """
    parts = [element("title", label), *under, *_axes(frame, x_label, x_ticks)]
    for line in lines:
        points = [frame.at(x, y) for x, y in line.points if isfinite(y)]
        if line.low is not None and line.high is not None:
            xs = [x for x, _ in line.points]
            ring = [frame.at(x, y) for x, y in zip(xs, line.high, strict=True)]
            ring += [frame.at(x, y) for x, y in reversed(list(zip(xs, line.low, strict=True)))]
            parts.append(element("polygon", points=_pairs(ring), class_=f"band {line.style}"))
        parts.append(element("polyline", points=_pairs(points), class_=f"line {line.style}"))
        if line.markers:
            for x, y in line.points:
                px, py = frame.at(x, y)
                hint = element("title", f"{line.name}: {x:g}, {y:.3f}")
                parts.append(element("circle", hint, cx=px, cy=py, r=3, class_=f"dot {line.style}"))
    identity = {"id": name, "data_frame": json.dumps(asdict(frame))} if name else {}
    return element(
        "svg", join([*parts, *over]), viewBox=f"0 0 {frame.width} {frame.height}", class_="chart", role="img",
        aria_label=label, **identity,
    )  # fmt: skip


def level(frame: Frame, y: float, text: str, style: str = "threshold") -> Markup:
    """A horizontal line with its name."""
    x0, py = frame.at(frame.x[0], y)
    x1, _ = frame.at(frame.x[1], y)
    line = element("line", x1=x0, y1=py, x2=x1, y2=py, class_=style)
    words = element("text", text, x=x1 - 2, y=round(py - 4, 2), class_=f"{style}-text", text_anchor="end")
    return element("g", line + words, class_=f"{style}-group")


def flag(frame: Frame, x: float, text: str, row: int = 0) -> Markup:
    """A vertical line at x with its name at the top; `row` lowers the name below those of others."""
    px, bottom = frame.at(x, frame.y[0])
    top = frame.top + 12 * row
    line = element("line", x1=px, y1=bottom, x2=px, y2=top, class_="threshold")
    late = px > frame.width * 0.6
    place = {"x": round(px + (-4 if late else 4), 2), "y": round(top + 9, 2)}
    words = element("text", text, **place, class_="threshold-text", text_anchor="end" if late else "start")
    return element("g", line + words, class_="flag")


def shade(frame: Frame, x: float, text: str) -> Markup:
    """Everything to the right of x, greyed: what is discarded."""
    left, _ = frame.at(min(x, frame.x[1]), 0)
    right, _ = frame.at(frame.x[1], 0)
    width = round(right - left, 2)
    tall = frame.height - frame.top - frame.bottom
    box = element("rect", x=left, y=frame.top, width=width, height=tall, class_="discarded")
    low = frame.height - frame.bottom - 5
    words = element("text", text if width > 60 else "", x=round(left + 4, 2), y=low, class_="discarded-text")
    return element("g", box + words)


def _axes(frame: Frame, x_label: str, x_ticks: Sequence[float] | None) -> list[Markup]:
    parts = []
    x0, y0 = frame.at(*[frame.x[0], frame.y[0]])
    x1, _ = frame.at(frame.x[1], frame.y[0])
    for value in ticks(*frame.y):
        _, py = frame.at(frame.x[0], value)
        parts.append(element("line", x1=x0, y1=py, x2=x1, y2=py, class_="grid"))
        parts.append(element("text", format(value, "g"), x=x0 - 5, y=round(py + 3.5, 2), text_anchor="end"))
    for value in ticks(*frame.x) if x_ticks is None else x_ticks:
        px, _ = frame.at(value, frame.y[0])
        parts.append(element("text", format(value, "g"), x=px, y=y0 + 14, text_anchor="middle"))
    parts.append(element("line", x1=x0, y1=y0, x2=x1, y2=y0, class_="axis"))
    parts.append(element("text", x_label, x=round((x0 + x1) / 2, 2), y=frame.height - 4, text_anchor="middle"))
    return parts


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
