"""Boxes and a rule -> which locations each box gets, and which are ambiguous (arXiv:1904.01355, Sec. 4.1.1).

The words are the paper's. A box is recalled if it is assigned to at least one location in training; the share of those
is the best possible recall. A positive is a location that is assigned to a box. It is ambiguous if it lies in the
regions of several boxes at its level, with all that decides about a region: the inside of the box or its centre, and
the level's size range; it is ambiguous across classes if these boxes are of more than one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.audit.reach import Rule, by_area, claims

__all__ = ["Assignment", "assign"]

_CLAIMS = 1 << 18  # of boxes on locations, held at a time, about


@dataclass(frozen=True)
class Assignment:
    """What becomes of M boxes under a rule with L levels.

    Attributes:
        rule: the rule.
        alone: (M,) bool, whether a location would take the box were it alone in its picture.
        won: (M, L) int64, locations of each level that are assigned to the box.
        positives: (L,) int64, locations that are assigned to a box.
        ambiguous: (L,) int64, those that lie in the regions of several boxes.
        across: (L,) int64, those that lie in the regions of boxes of several classes.
    """

    rule: Rule
    alone: np.ndarray
    won: np.ndarray
    positives: np.ndarray
    ambiguous: np.ndarray
    across: np.ndarray

    @property
    def recalled(self) -> np.ndarray:
        """(M,) bool, whether the box is assigned to at least one location."""
        return self.won.max(1, initial=0) > 0

    @property
    def best_possible_recall(self) -> float:
        """From 0 to 1; NaN without boxes."""
        return float(self.recalled.mean()) if len(self.won) else float("nan")

    @property
    def ambiguous_share(self) -> float:
        """Ambiguous locations over all positives, from 0 to 1; NaN without positives."""
        return _share(self.ambiguous, self.positives)

    @property
    def across_share(self) -> float:
        """The same of those that are ambiguous across classes."""
        return _share(self.across, self.positives)


def _share(some: np.ndarray, of: np.ndarray) -> float:
    return float(some.sum() / of.sum()) if of.sum() else float("nan")


def assign(boxes: np.ndarray, image: np.ndarray, label: np.ndarray, rule: Rule) -> Assignment:
    """Assign locations to boxes as `modeling.assigner.PointAssigner` does, and count.

    Args:
        boxes: (M, 4) x1, y1, x2, y2 in pixels of the input.
        image: (M,) number of the image of each, 0 or more.
        label: (M,) class of each.
        rule: what decides.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    levels = len(rule.strides)
    alone, won = np.zeros(len(boxes), bool), np.zeros((len(boxes), levels), np.int64)
    positives, ambiguous, across = (np.zeros(levels, np.int64) for _ in range(3))
    for some in _blocks(boxes, image, rule):  # the smallest box first
        for level in range(levels):
            slots, rows = claims(boxes[some], image[some], level, rule)
            if not len(slots):
                continue
            order = np.argsort(slots, kind="stable")
            slots, rows = slots[order], some[rows[order]]
            starts = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1])))
            winner, claimed = rows[starts], np.diff(np.append(starts, len(slots)))
            others = label[rows] != np.repeat(label[winner], claimed)
            alone[rows] = True
            np.add.at(won[:, level], winner, 1)
            positives[level] += len(starts)
            ambiguous[level] += np.count_nonzero(claimed > 1)
            across[level] += np.count_nonzero(np.logical_or.reduceat(others, starts))
    return Assignment(rule, alone, won, positives, ambiguous, across)


def _blocks(boxes: np.ndarray, image: np.ndarray, rule: Rule) -> Iterator[np.ndarray]:
    """Rows of whole images, the smallest boxes first, so that those of a block claim about `_CLAIMS` locations."""
    if not len(boxes):
        return
    side, claimed = boxes[:, 2:] - boxes[:, :2], np.zeros(len(boxes))
    for stride, (low, high) in zip(rule.strides, rule.size_ranges):
        reach = min(high, 2 * rule.center_radius * stride) if rule.center_radius else high
        near = (side.max(1) >= low) & (side.max(1) / 2 <= high)
        claimed += near * (np.minimum(side, reach) / stride + 1).prod(1)
    block = (np.cumsum(np.bincount(image, claimed)) // _CLAIMS).astype(np.int64)
    order = by_area(boxes, rule)
    of = block[image[order]]
    order = order[np.argsort(of, kind="stable")]
    yield from np.split(order, np.flatnonzero(np.diff(np.sort(of))) + 1)
