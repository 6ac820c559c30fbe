"""Which boxes some location of FCOS answers for: the rule of `modeling.assigner.PointAssigner`, without PyTorch.

A location at `stride // 2 + stride * k` takes a box if it lies inside it, within the center radius of its middle, and
if its largest distance to a side suits the level's size range; of several boxes it takes the one of the smallest area.
All is computed in float32, as the assigner does, and a test compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Rule", "input_sizes", "taken"]

_BOXES = 4096  # at a time


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


def input_sizes(sizes: np.ndarray, rule: Rule) -> np.ndarray:
    """(N, 2) width and height of images -> those of the input, as Detectron2's `ResizeShortestEdge` computes them."""
    longest = round(rule.image_size * 5 / 3) if rule.max_size is None else rule.max_size
    sizes = np.asarray(sizes, np.float64)
    scaled = sizes * (rule.image_size / sizes.min(1, keepdims=True))
    scaled *= np.minimum(1.0, longest / scaled.max(1, keepdims=True))
    return np.floor(scaled + 0.5)


def taken(boxes: np.ndarray, image: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Say of each box whether a location would take it.

    Args:
        boxes: (M, 4) x1, y1, x2, y2 in pixels of the input.
        image: (M,) number of the image of each, 0 or more.
    Returns:
        (M,) bool if it were alone in its image, and (M,) bool beside the others.
    """
    boxes = np.asarray(boxes, np.float32)
    side = boxes[:, 2:].astype(np.float64) - boxes[:, :2].astype(np.float64)
    order = np.argsort((side + 1 if rule.area == "plus_one" else side).prod(1), kind="stable")
    alone, wins = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    for level, stride in enumerate(rule.strides):
        found = [
            _claims(boxes[some], image[some], some, level, stride, rule)
            for some in np.split(order, range(_BOXES, len(order), _BOXES))
        ]
        slots, rows = (np.concatenate(parts) for parts in zip(*found))
        alone[rows] = True
        wins[rows[np.unique(slots, return_index=True)[1]]] = True  # the first is the smallest
    return alone, wins


def _claims(
    boxes: np.ndarray, image: np.ndarray, rows: np.ndarray, level: int, stride: int, rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """Slots of one level that boxes claim, and the row of the box of each; the boxes stay in their order."""
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)  # the farther side is at least half of it away
    near = (longest >= rule.size_ranges[level][0] - 1) & (longest / 2 <= rule.size_ranges[level][1] + 1)
    boxes, image, rows = boxes[near], image[near], rows[near]
    (low, high), radius = rule.size_ranges[level], np.float32(rule.center_radius * stride)
    offset = stride // 2 if rule.origin == "center" else 0
    across, cells_x = _axis(boxes[:, 0], boxes[:, 2], (stride, offset), high, radius)
    down, cells_y = _axis(boxes[:, 1], boxes[:, 3], (stride, offset), high, radius)
    far = np.maximum(across[..., None, :], down[..., :, None])  # (M, rows, columns); NaN where a location is not in
    with np.errstate(invalid="ignore"):
        suits = (far >= low) & (far <= high) if rule.range_ends == "closed" else (far > low) & (far < high)
    box, row, column = np.nonzero(suits)
    slots = (image[box].astype(np.int64) << 32) + (cells_y[box, row] << 16) + cells_x[box, column]
    return slots, rows[box]


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
