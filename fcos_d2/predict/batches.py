"""Which network inputs go through a network together."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["batches"]


def batches(shapes: Sequence[tuple[int, ...]], size: int) -> list[list[int]]:
    """Rows of equal shapes, at most `size` together, in the order in which the shapes come."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, shape in enumerate(shapes):
        rows.setdefault(shape, []).append(row)
    return [group[start : start + size] for group in rows.values() for start in range(0, len(group), size)]
