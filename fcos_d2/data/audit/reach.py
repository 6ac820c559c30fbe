"""Which boxes some location of FCOS answers for: the rule of `modeling.assigner.PointAssigner`, without PyTorch.

A location at `stride // 2 + stride * k` takes a box if it lies inside it, within the center radius of its middle, and
if its largest distance to a side suits the level's size range; of several boxes it takes the one of the smallest area.
All is computed in float32, as the assigner does, and a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Rule", "by_area", "claims", "input_boxes", "input_sizes", "taken"]

_BOXES = 4096  # at a time
_CELLS = 1 << 20  # locations that are looked at at a time, so that large boxes fill no memory


@dataclass(frozen=True)
class Rule:
    """What decides which boxes are assigned; the fields are those of `PointAssigner`, and what it is given."""

    image_size: int = 320  # shorter side of the network's input, pixels
    max_size: int | None = None  # longer side at most; None: five thirds of the shorter
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    size_ranges: tuple[tuple[float, float], ...] = (
        (-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf)
    )  # fmt: skip
    range_ends: str = "closed"
    center_radius: float = 1.5
    area: str = "plain"
    origin: str = "center"  # or "corner", torchvision's: the first location of a level lies in the image's corner
    inclusive_far_corner: bool = False  # boxes end a pixel of the image earlier, as those of the original FCOS do


def input_sizes(sizes: np.ndarray, rule: Rule) -> np.ndarray:
    """(N, 2) width and height of images -> those of the input, as Detectron2's `ResizeShortestEdge` computes them."""
    longest = round(rule.image_size * 5 / 3) if rule.max_size is None else rule.max_size
    sizes = np.asarray(sizes, np.float64)
    scaled = sizes * (rule.image_size / sizes.min(1, keepdims=True))
    scaled *= np.minimum(1.0, longest / scaled.max(1, keepdims=True))
    return np.floor(scaled + 0.5)


def input_boxes(corners: np.ndarray, frame: np.ndarray, rule: Rule) -> np.ndarray:
    """Boxes as the assigner sees them: resized with their image, cut at its border.

    Args:
        corners: (M, 4) x1, y1, x2, y2 in pixels of the image.
        frame: (M, 2) width and height of the image of each.
    Returns:
        (M, 4) float32, pixels of the input.
    """
    size = input_sizes(frame, rule)
    boxes = np.clip(corners * np.tile(size / frame, 2), 0, np.tile(size, 2)).astype(np.float32)
    if rule.inclusive_far_corner:
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:] - (size / frame).astype(np.float32))
    return boxes


def by_area(boxes: np.ndarray, rule: Rule) -> np.ndarray:
    """Rows of (M, 4) boxes, the smallest first: of the boxes that claim a location, the first of these gets it."""
    side = boxes[:, 2:].astype(np.float64) - boxes[:, :2].astype(np.float64)
    return np.argsort((side + 1 if rule.area == "plus_one" else side).prod(1), kind="stable")


def taken(boxes: np.ndarray, image: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Say of each box whether a location would take it.

    Args:
        boxes: (M, 4) x1, y1, x2, y2 in pixels of the input.
        image: (M,) number of the image of each, 0 or more.
    Returns:
        (M,) bool if it were alone in its image, and (M,) bool beside the others.
    """
    boxes = np.asarray(boxes, np.float32)
    order = by_area(boxes, rule)
    alone, wins = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    for level in range(len(rule.strides)):
        slots, rows = claims(boxes[order], image[order], level, rule)
        rows = order[rows]
        alone[rows] = True
        wins[rows[np.unique(slots, return_index=True)[1]]] = True  # the first is the smallest
    return alone, wins


def claims(boxes: np.ndarray, image: np.ndarray, level: int, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """The locations of one level that lie in the region of each box, and whose size range suits it.

    Args:
        boxes: (M, 4) float32 x1, y1, x2, y2 in pixels of the input.
        image: (M,) number of the image of each.
    Returns:
        (P,) int64 that is the same for one location of one image, and (P,) rows of the boxes, in their order.
    """
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)  # the farther side is at least half of it away
    low, high = rule.size_ranges[level]
    near = np.flatnonzero((longest >= low - 1) & (longest / 2 <= high + 1))
    slots, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for piece in _pieces(boxes[near], level, rule):
        some = near[piece]
        found, box = _claims(boxes[some], image[some], level, rule)
        slots.append(found)
        rows.append(some[box])
    return np.concatenate(slots), np.concatenate(rows)


def _pieces(boxes: np.ndarray, level: int, rule: Rule) -> Iterator[slice]:
    """Divide boxes so that the windows of a piece hold about `_CELLS` locations."""
    stride, reach = rule.strides[level], rule.size_ranges[level][1]
    reach = min(reach, 2 * rule.center_radius * stride) if rule.center_radius else reach
    cells = np.minimum(boxes[:, 2:] - boxes[:, :2], reach) / stride + 4
    start = 0
    while start < len(boxes):
        end = min(start + _BOXES, len(boxes))
        while end - start > 1 and (end - start) * cells[start:end].max(0).prod() > _CELLS:
            end -= (end - start) // 2
        yield slice(start, end)
        start = end


def _claims(boxes: np.ndarray, image: np.ndarray, level: int, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    stride, (low, high) = rule.strides[level], rule.size_ranges[level]
    radius = np.float32(rule.center_radius * stride)
    offset = stride // 2 if rule.origin == "center" else 0
    across, cells_x = _axis(boxes[:, 0], boxes[:, 2], (stride, offset), high, radius)
    down, cells_y = _axis(boxes[:, 1], boxes[:, 3], (stride, offset), high, radius)
    far = np.maximum(across[..., None, :], down[..., :, None])  # (M, rows, columns); NaN where a location is not in
    with np.errstate(invalid="ignore"):
        suits = (far >= low) & (far <= high) if rule.range_ends == "closed" else (far > low) & (far < high)
    box, row, column = np.nonzero(suits)
    return (image[box].astype(np.int64) << 32) + (cells_y[box, row] << 16) + cells_x[box, column], box


def _axis(
    low: np.ndarray, high: np.ndarray, places: tuple[int, int], reach: float, radius: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Of one axis, (M, cells): the distance to the farther side, NaN for locations that do not count; the cells."""
    stride, offset = places
    first, last, middle = low, high, (low + high) / np.float32(2)
    if math.isfinite(reach):
        first, last = np.maximum(first, high - np.float32(reach)), np.minimum(last, low + np.float32(reach))
    if radius:
        first, last = np.maximum(first, middle - radius), np.minimum(last, middle + radius)
    start = np.maximum(np.floor((first - offset) / stride).astype(np.int64) - 1, 0)
    count = int(np.ceil((last - first).max(initial=0) / stride)) + 4
    cells = start[:, None] + np.arange(count)
    at = cells.astype(np.float32) * np.float32(stride) + np.float32(offset)
    near_side, far_side = at - low[:, None], high[:, None] - at
    counts = np.minimum(near_side, far_side) > 0
    if radius:
        counts &= np.abs(at - middle[:, None]) < radius
    return np.where(counts, np.maximum(near_side, far_side), np.float32(np.nan)), cells
