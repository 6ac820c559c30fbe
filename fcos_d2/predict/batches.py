"""Which images go through a network together, and what becomes of the others where one of them is bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["answers", "batches"]

_Image = TypeVar("_Image")


def answers(
    find: Callable[[Sequence[_Image]], Sequence[Any]], images: Sequence[_Image], errors: type[Exception]
) -> list[Any]:
    """What `find` says of each image, or the error of that kind that the image by itself leads to.

    All are looked at together; where that fails, each alone, so that a bad one takes no other with it.
    """
    try:
        return list(find(images))
    except errors as error:
        if len(images) == 1:
            return [error]
        return [found for image in images for found in answers(find, [image], errors)]


def batches(shapes: Sequence[tuple[int, ...]], size: int) -> list[list[int]]:
    """Rows of equal shapes, at most `size` together, in the order in which the shapes come."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, shape in enumerate(shapes):
        rows.setdefault(shape, []).append(row)
    return [group[start : start + size] for group in rows.values() for start in range(0, len(group), size)]
