"""What an exporter meant by a JSON value: numbers and flags as text, ids as 3.0, null or NaN for nothing."""

from __future__ import annotations

import math
import re
import reprlib

__all__ = ["LARGEST_ID", "flag", "identity", "number", "shown"]

LARGEST_ID = 2**53  # the whole numbers up to it are exact in float64, where evaluation has them
_WHOLE = re.compile(r"(0|-?[1-9][0-9]*)(\.0*)?")
_FLAGS = {"": 0, "false": 0, "no": 0, "true": 1, "yes": 1}
_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxlevel = 80, 80, 6, 6, 2


def number(value: object) -> int | float | None:
    """A number, or text that is one; NaN for null and empty text, infinity beyond float64; None for all else."""
    if value is None or value == "":
        return math.nan
    if isinstance(value, str) and "_" not in value:
        try:
            value = float(value)
        except ValueError:
            return None
        return int(value) if value.is_integer() else value
    if type(value) is int and abs(value) >= 2**1023:
        return math.inf if value > 0 else -math.inf
    return value if type(value) in (int, float) else None  # type: ignore[return-value]


def flag(value: object) -> int | None:
    """0 or 1, also written as false, 0.0, "1" or "no"; 0 for null, NaN and empty text; None for all else."""
    found = int(value) if isinstance(value, bool) else number(value)
    if isinstance(value, str):
        found = _FLAGS.get(value.strip().lower(), found)
    if found is None or found in (0, 1):
        return None if found is None else int(found)
    return 0 if math.isnan(found) else None


def identity(value: object) -> int | str | None:
    """An id: a whole number, also where it is written as 3.0 or "3"; else the text; None for all else."""
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value) if len(value) < 20 else None
        return int(whole[1]) if whole else value or None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def shown(value: object) -> str:
    """A value for a message: one line, and not all of a long one."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 200 else _SHORT.repr(value)[:200]
