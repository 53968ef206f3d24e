"""Number formats, the same in the HTML page and in Markdown."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard

MINUS = "−"
NOTHING = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether the value is a finite number (not a bool)."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: Any, digits: int) -> str:
    """Format a number with `digits` decimals and a true minus sign; a dash if the value is no number."""
    if not is_number(value):
        return NOTHING
    text = f"{abs(float(value)):.{digits}f}"
    negative = float(value) < 0 and float(text) != 0
    return f"{MINUS}{text}" if negative else text


def signed(value: Any, digits: int) -> str:
    """Format as `fixed`, with a plus sign before a positive number."""
    text = fixed(value, digits)
    return text if text == NOTHING or text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def whole(value: Any) -> str:
    """Format a count with thousands separators; a dash if the value is no number."""
    return f"{int(value):,}" if is_number(value) else NOTHING


def interval_text(low: Any, high: Any, digits: int) -> str:
    """Format both ends of an interval; a dash if an end is missing."""
    return f"{signed(low, digits)} to {signed(high, digits)}" if is_number(low) and is_number(high) else NOTHING


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: "1 block", "2 blocks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listing(parts: list[str]) -> str:
    """Join parts to a list in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part) if parts else ""


def capitalised(text: str) -> str:
    """Return the text with a capital first letter, otherwise unchanged."""
    return text[:1].upper() + text[1:]


def unbroken(text: str) -> str:
    """Return the text with no line break between a number and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
