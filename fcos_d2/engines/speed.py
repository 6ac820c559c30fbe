"""Which of several ways to do one thing takes the least time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["fastest", "medians"]


def medians(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds that each way takes, the median of some rounds in turns, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for counts in (False, *[True] * rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if counts:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in times.items()}


def fastest(ways: Mapping[str, Callable[[], Any]]) -> str:
    """The name of the way that takes the least time."""
    seconds = medians(ways, rounds=3)
    return min(seconds, key=lambda name: seconds[name])
