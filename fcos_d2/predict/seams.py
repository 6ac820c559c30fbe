"""What is found in overlapping parts of an image -> what there is in the image, each object once.

An object that is no larger than the overlap is whole in some part, with its center in that part's core: there it is
taken from, untouched. The whole image, reduced, finds objects larger than that; what the border of a part cuts off
counts only where neither a part nor the reduced image shows it whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Found", "joined"]

WHOLE = -1  # the part that is the reduced image
_SAME = 0.5  # IoU from which two parts mean one object
_INSIDE = 0.7  # of a piece's area within an object that it is a piece of
_NEAR = 1 / 16  # of the overlap: a box that ends so near a border is cut off by it
_BESIDE = 1 / 8  # of the overlap: so far beside its core a part is still believed
_LARGE = 5 / 4  # of the overlap: objects of that size are rather believed of the reduced image than put together
_FIELDS = ("boxes", "scores", "classes", "part")


@dataclass(frozen=True)
class Found:
    """n detections of parts of an image."""

    boxes: np.ndarray  # (n, 4) float64 xyxy, pixels of the image
    scores: np.ndarray  # (n,) float64
    classes: np.ndarray  # (n,) int64
    part: np.ndarray  # (n,) int64, row of the part, or WHOLE

    def __getitem__(self, rows: np.ndarray) -> Found:
        return Found(self.boxes[rows], self.scores[rows], self.classes[rows], self.part[rows])

    def __len__(self) -> int:
        return len(self.scores)


def joined(found: Found, parts: np.ndarray, size: tuple[int, int], overlap: tuple[float, float]) -> Found:
    """Each object once, best score first.

    Args:
        found: of all parts.
        parts: (m, 4) float64 xyxy of the parts in pixels of the image.
        size: (width, height) of the image.
        overlap: of neighbouring parts in x and y, pixels of the image.
    """
    cut = _cut_sides(found, parts, size, overlap)
    kept = []
    for label in np.unique(found.classes):
        rows = np.flatnonzero(found.classes == label)
        kept.append(_one_class(found[rows], cut[rows], _in_core(found, parts, size, overlap)[rows], overlap))
    if not kept:
        return found
    fields = (np.concatenate([getattr(some, name) for some in kept]) for name in ("boxes", "scores", "classes", "part"))
    together = Found(*fields)
    return together[np.argsort(-together.scores, kind="stable")]


def _one_class(found: Found, cut: np.ndarray, in_core: np.ndarray, overlap: tuple[float, float]) -> Found:
    """Objects of one class: those whole in a part, large ones of the reduced image, and pieces that are left."""
    of_part = found.part != WHOLE
    whole = of_part & ~cut.any(1) & in_core
    large = ~of_part & ((found.boxes[:, 2:] - found.boxes[:, :2]) > np.array(overlap) * _LARGE).any(1)
    objects = _added(found[whole], found[whole & False])
    objects = _added(found[large], objects)
    rows = np.flatnonzero(of_part & cut.any(1))
    rows = rows[_outside(found.boxes[rows], objects.boxes)]
    together = _assembled(found[rows], cut[rows])
    largest = np.argsort(-(together.boxes[:, 2:] - together.boxes[:, :2]).prod(1), kind="stable")
    boxes = together.boxes[largest]
    alone = [bool(_outside(boxes[row : row + 1], boxes[:row])[0]) for row in range(len(boxes))]
    return _added(together[largest[np.array(alone, dtype=bool)]], objects)


def _outside(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(n,) whether boxes are no pieces of objects."""
    if not len(objects):
        return np.ones(len(boxes), dtype=bool)
    inside = [_shares(box[None], objects, of_first=True).max() for box in boxes]
    return np.array(inside, dtype=float) < _INSIDE


def _added(some: Found, objects: Found) -> Found:
    """Objects, and those of `some` that none of them, and no better one of another part, overlaps; best first."""
    both = Found(*(np.concatenate([getattr(x, name) for x in (objects, some)]) for name in _FIELDS))
    kept, count = np.zeros(len(both), dtype=np.int64), len(objects)
    kept[:count] = np.arange(count)
    for row in np.argsort(-some.scores, kind="stable") + len(objects):
        others = kept[:count][both.part[kept[:count]] != both.part[row]]
        if not len(others) or _shares(both.boxes[row : row + 1], both.boxes[others]).max() <= _SAME:
            kept[count] = row
            count += 1
    return both[kept[:count]]


def _assembled(pieces: Found, cut: np.ndarray) -> Found:
    """Pieces that continue each other across the borders of parts, as one box with the best of their scores."""
    group = np.arange(len(pieces))
    for one in range(len(pieces)):
        for other in np.flatnonzero(_continues(pieces, cut, one)):
            group[group == group[other]] = group[one]
    found = [pieces[np.flatnonzero(group == number)] for number in np.unique(group)]
    boxes = [np.concatenate([some.boxes[:, :2].min(0), some.boxes[:, 2:].max(0)]) for some in found]
    best = [some[np.array([int(some.scores.argmax())])] for some in found]
    if not best:
        return pieces
    scores, classes = (np.concatenate([getattr(some, name) for some in best]) for name in ("scores", "classes"))
    return Found(np.stack(boxes), scores, classes, -2 - np.arange(len(best)))


def _continues(pieces: Found, cut: np.ndarray, one: int) -> np.ndarray:
    """(n,) whether pieces of other parts go on where one ends: cut on the facing side, and as high there, or wide."""
    left, top, right, bottom = pieces.boxes.T
    box = pieces.boxes[one]
    meets = (left <= box[2]) & (right >= box[0]) & (top <= box[3]) & (bottom >= box[1])
    beside = cut[one, 2] & cut[:, 0] & (right > box[2]) & (_shared_range(top, bottom, box[1], box[3]) > _SAME)
    below = cut[one, 3] & cut[:, 1] & (bottom > box[3]) & (_shared_range(left, right, box[0], box[2]) > _SAME)
    return meets & (beside | below) & (pieces.part != pieces.part[one])


def _shared_range(low: np.ndarray, high: np.ndarray, first: float, last: float) -> np.ndarray:
    """IoU of ranges and one range."""
    inter = (np.minimum(high, last) - np.maximum(low, first)).clip(0)
    return inter / np.maximum(np.maximum(high, last) - np.minimum(low, first), 1e-9)


def _cut_sides(found: Found, parts: np.ndarray, size: tuple[int, int], overlap: tuple[float, float]) -> np.ndarray:
    """(n, 4) whether each side of a box lies at a border of its part that is not one of the image."""
    if not len(found):
        return np.zeros((0, 4), dtype=bool)
    of_part = found.part >= 0
    borders = parts[found.part.clip(0)]
    near = np.array(overlap * 2) * _NEAR
    inner = np.concatenate([borders[:, :2] > 0, borders[:, 2:] < np.array(size)], axis=1)
    return (np.abs(found.boxes - borders) <= near) & inner & of_part[:, None]


def _in_core(found: Found, parts: np.ndarray, size: tuple[int, int], overlap: tuple[float, float]) -> np.ndarray:
    """(n,) whether the center of a box lies where no other part is better placed, or just beside."""
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    borders, far = parts[found.part.clip(0)], np.array(size)
    inset = np.array(overlap) * (0.5 - _BESIDE)
    low = np.where(borders[:, :2] > 0, borders[:, :2] + inset, -np.inf)
    high = np.where(borders[:, 2:] < far, borders[:, 2:] - inset, np.inf)
    return ((centers >= low) & (centers <= high)).all(1)


def _shares(boxes: np.ndarray, others: np.ndarray, of_first: bool = False) -> np.ndarray:
    """(n, m) IoU of boxes; with `of_first`, the share of each box that lies within the others."""
    inter = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    inter = inter.clip(0).prod(-1)
    area, other_area = ((x[:, 2:] - x[:, :2]).clip(0).prod(-1) for x in (boxes, others))
    whole = area[:, None] if of_first else area[:, None] + other_area[None] - inter
    return inter / np.maximum(whole, 1e-9)
