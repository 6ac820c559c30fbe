"""Numbers in the form in which people read them."""

from __future__ import annotations

__all__ = ["duration", "memory_size"]


def duration(seconds: float) -> str:
    """0 s, 59 s, 1 min 01 s, 1 h 01 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def memory_size(number: float) -> str:
    """Bytes as 640 MiB or 1.5 GiB."""
    mebibytes = number / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:.1f} GiB"
