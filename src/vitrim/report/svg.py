"""Line charts as SVG text. The style sheet of the page sets the colours, for light, dark and print."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator


def element(name: str, content: Any = "", **attributes: Any) -> Markup:
    """Return an SVG element. `class_` becomes class, `stroke_width` stroke-width. All text except Markup is escaped."""
    text = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{text}>{escape(content)}</{name}>")


def join(parts: Sequence[Markup]) -> Markup:
    """Concatenate elements."""
    return Markup("").join(parts)


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y), CSS class for its colour (`style`), name, and lower and upper edge of its band."""

    points: Sequence[tuple[float, float]]
    style: str
    name: str
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    markers: bool = False
    hollow: Container[float] = ()
    """The x of points that are drawn as rings."""


@dataclass(frozen=True)
class Frame:
    """The plotting area: ranges of both axes; size and margins in SVG user units."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 336
    height: int = 230
    left: int = 48
    right: int = 12
    top: int = 12
    bottom: int = 42

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return a point in user units, with y clipped to the frame."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = min(1.0, max(0.0, (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)))
        return (
            round(self.left + across * (self.width - self.left - self.right), 2),
            round(self.height - self.bottom - up * (self.height - self.top - self.bottom), 2),
        )


def framed(x: tuple[float, float], y: tuple[float, float], **sides: int) -> Frame:
    """Return a frame with space on the left for the numbers of the y axis. `sides` are other fields of a frame."""
    left = max(34, 12 + round(7.6 * max(len(f"{value:g}") for value in ticks(*y))))
    return Frame(x, y, left=left, **sides)


def nice_range(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float]:
    """Return the ends of an axis that contains all values.

    A given end, `low` or `high`, is moved only if a value lies outside it. An end of None gets 8 % extra space.
    """
    known = [value for value in values if isfinite(value)] or [0.0, 1.0]
    bottom = min(known) if low is None else min(low, *known)
    top = max(known) if high is None else max(high, *known)
    space = (top - bottom or abs(top) or 1.0) * 0.08
    return (bottom - space if low is None else bottom, top + space if high is None else top)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two ends, with at most `count` intervals."""
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
    """Return a chart with axes. `under` is drawn below its lines and `over` above them.

    label: text for screen readers. name: id of the chart; if given, the chart also contains its frame, for page.js.
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
                shape, radius = ("ring", 5.0) if x in line.hollow else ("dot", 3.5)
                parts.append(element("circle", hint, cx=px, cy=py, r=radius, class_=f"{shape} {line.style}"))
    identity = {"id": name, "data_frame": json.dumps(asdict(frame))} if name else {}
    return element(
        "svg", join([*parts, *over]), viewBox=f"0 0 {frame.width} {frame.height}", class_="chart", role="img",
        aria_label=label, **identity,
    )  # fmt: skip


def level(frame: Frame, y: float, text: str, style: str = "threshold") -> Markup:
    """Return a horizontal line at y with its name."""
    x0, py = frame.at(frame.x[0], y)
    x1, _ = frame.at(frame.x[1], y)
    line = element("line", x1=x0, y1=py, x2=x1, y2=py, class_=style)
    words = element("text", text, x=x1 - 2, y=round(py - 4, 2), class_=f"{style}-text", text_anchor="end")
    return element("g", line + words, class_=f"{style}-group")


def flag(frame: Frame, x: float, text: str, row: int = 0) -> Markup:
    """Return a vertical line at x with its name at the top. `row` lowers the name so that names do not overlap."""
    px, bottom = frame.at(x, frame.y[0])
    top = frame.top + 15 * row
    line = element("line", x1=px, y1=bottom, x2=px, y2=top, class_="threshold")
    late = px > frame.width * 0.6
    place = {"x": round(px + (-4 if late else 4), 2), "y": round(top + 11, 2)}
    words = element("text", text, **place, class_="threshold-text", text_anchor="end" if late else "start")
    return element("g", line + words, class_="flag")


def shade(frame: Frame, x: float, text: str) -> Markup:
    """Return a grey area to the right of x, for the discarded blocks."""
    left, _ = frame.at(min(x, frame.x[1]), 0)
    right, _ = frame.at(frame.x[1], 0)
    width = round(right - left, 2)
    tall = frame.height - frame.top - frame.bottom
    box = element("rect", x=left, y=frame.top, width=width, height=tall, class_="discarded")
    low = frame.height - frame.bottom - 5
    words = element("text", text if width > 60 else "", x=round(left + 4, 2), y=low, class_="discarded-text")
    return element("g", box + words)


def band(frame: Frame, low: float, high: float, text: str) -> Markup:
    """Return a horizontal band between two y values with its name."""
    left, top = frame.at(frame.x[0], high)
    right, bottom = frame.at(frame.x[1], low)
    box = element("rect", x=left, y=top, width=right - left, height=round(bottom - top, 2), class_="margin-band")
    place = {"x": right - 4, "y": round(bottom - 5, 2), "text_anchor": "end"}
    return box + element("text", text, **place, class_="threshold-text")


def interval(frame: Frame, x: float, low: float, high: float, style: str) -> Markup:
    """Return a vertical bar from `low` to `high` at x, with short ends."""
    px, top = frame.at(x, high)
    _, bottom = frame.at(x, low)
    lines = [(px, px, top, bottom), (px - 4, px + 4, top, top), (px - 4, px + 4, bottom, bottom)]
    return join([element("line", x1=a, x2=b, y1=c, y2=d, class_=f"bar {style}") for a, b, c, d in lines])


def number_mark(frame: Frame, x: float, number: int) -> Markup:
    """Return a number in a circle, just above the x axis."""
    px, bottom = frame.at(x, frame.y[0])
    circle = element("circle", cx=px, cy=bottom - 12, r=9, class_="order")
    return circle + element("text", str(number), x=px, y=bottom - 7.5, text_anchor="middle", class_="order-text")


def ring(frame: Frame, x: float, y: float, text: str) -> Markup:
    """Return a ring with a hint."""
    px, py = frame.at(x, y)
    return element("circle", element("title", text), cx=px, cy=py, r=5, class_="ring trained")


def right_axis(frame: Frame, own: Frame, text: str) -> Markup:
    """Return the numbers of a second y axis on the right. `own` is the same area with the range of that axis."""
    parts = []
    for value in ticks(*own.y, count=4):
        px, py = own.at(own.x[1], value)
        parts.append(element("text", format(value, "g"), x=px + 5, y=round(py + 4.5, 2)))
    middle = round((frame.top + frame.height - frame.bottom) / 2, 2)
    turned = f"rotate(90 {frame.width - 14} {middle})"
    parts.append(element("text", text, x=frame.width - 14, y=middle, text_anchor="middle", transform=turned))
    return join(parts)


def polyline(frame: Frame, points: Sequence[tuple[float, float]], style: str) -> Markup:
    """Return a line through points without marks."""
    return element("polyline", points=_pairs([frame.at(x, y) for x, y in points]), class_=f"line {style}")


def _axes(frame: Frame, x_label: str, x_ticks: Sequence[float] | None) -> list[Markup]:
    parts = []
    x0, y0 = frame.at(*[frame.x[0], frame.y[0]])
    x1, _ = frame.at(frame.x[1], frame.y[0])
    for value in ticks(*frame.y):
        _, py = frame.at(frame.x[0], value)
        parts.append(element("line", x1=x0, y1=py, x2=x1, y2=py, class_="grid"))
        parts.append(element("text", format(value, "g"), x=x0 - 5, y=round(py + 4.5, 2), text_anchor="end"))
    for value in ticks(*frame.x) if x_ticks is None else x_ticks:
        px, _ = frame.at(value, frame.y[0])
        parts.append(element("text", format(value, "g"), x=px, y=y0 + 17, text_anchor="middle"))
    parts.append(element("line", x1=x0, y1=y0, x2=x1, y2=y0, class_="axis"))
    parts.append(element("text", x_label, x=round((x0 + x1) / 2, 2), y=frame.height - 5, text_anchor="middle"))
    return parts


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
