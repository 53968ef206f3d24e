"""How numbers look: one way for each kind, in the page and in the Markdown."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard

MINUS = "−"
NOTHING = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether there is a finite number to show."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: Any, digits: int) -> str:
    """A number with so many decimals and a true minus sign; a dash where there is none."""
    if not is_number(value):
        return NOTHING
    text = f"{abs(float(value)):.{digits}f}"
    negative = float(value) < 0 and float(text) != 0
    return f"{MINUS}{text}" if negative else text


def signed(value: Any, digits: int) -> str:
    """As `fixed`, with a plus sign before a gain."""
    text = fixed(value, digits)
    return text if text == NOTHING or text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def whole(value: Any) -> str:
    """A count with thousands set apart."""
    return f"{int(value):,}" if is_number(value) else NOTHING


def interval_text(low: Any, high: Any, digits: int) -> str:
    """Both ends of an interval; a dash where there is none."""
    return f"{signed(low, digits)} to {signed(high, digits)}" if is_number(low) and is_number(high) else NOTHING


def plural(count: int, noun: str) -> str:
    """1 block, 2 blocks."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listing(parts: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part) if parts else ""


def capitalised(text: str) -> str:
    """The text with a capital first letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]
