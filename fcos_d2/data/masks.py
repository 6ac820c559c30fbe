"""Which masks and lists of numbers of an annotation can be read."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

__all__ = ["PLAIN", "finite_numbers", "usable_masks"]

PLAIN = frozenset((int, float))


def usable_masks(segmentation: Any) -> Any:
    """Run lengths, or the polygons of at least three points; None where there is neither."""
    if isinstance(segmentation, dict):
        size: Any = segmentation.get("size")
        counts: Any = segmentation.get("counts")
        sound = len(finite_numbers(size)) == 2 and all(type(side) is int and side > 0 for side in size)
        if isinstance(counts, list):
            sound = sound and all(type(run) is int and run >= 0 for run in counts)
            return segmentation if sound and sum(counts) == math.prod(size) else None
        return segmentation if sound and isinstance(counts, str) else None
    polygons = segmentation if isinstance(segmentation, list) else []
    return [polygon for polygon in polygons if len(finite_numbers(polygon)) >= 6 and len(polygon) % 2 == 0] or None


def finite_numbers(values: Any) -> list:
    """A list of finite numbers; empty for anything else."""
    if not isinstance(values, list) or not values or not PLAIN.issuperset(map(type, values)):
        return []
    with suppress(OverflowError):  # of whole numbers without end
        if all(map(math.isfinite, values)) and min(values) > -1e300 and max(values) < 1e300:
            return values
    return []
