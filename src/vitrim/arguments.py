"""Checks of arguments that the public functions share: a number that is none is an InputError, not a TypeError."""

from __future__ import annotations

import math
import operator
from typing import Any

from vitrim.errors import InputError


def whole_number(value: Any, name: str) -> int:
    """Return `value` as a Python integer. Raises InputError if it is not one; True, 1.0 and "1" are none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r:.100}") from None


def positive_number(value: Any, name: str) -> float:
    """Return `value` as a float. Raises InputError if it is no number above 0, or not finite."""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a finite number above 0, not {str(value)[:100]!r}")
    return number
