"""Which detection found which object: COCO's rules at one IoU, for all images at once.

pycocotools does the same inside `COCOeval.evaluateImg`, an image, a class and a detection at a time. Here the first
detection that is left of every image and class is settled in one step, then the second, and so on. Whether a detection
is right never depends on those with lower scores, so one matching serves every score threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LEAST_GAP", "Found", "Matches", "Truth", "best_overlaps", "match", "object_overlaps", "overlaps"]

_PAIRS = 1 << 22  # pairs of a detection and an object whose overlaps are computed at once
LEAST_GAP = 1e-10  # COCO's largest IoU threshold is 1 less this


@dataclass(frozen=True)
class Found:
    """Detections of many images, D rows in any order.

    Attributes:
        image, label: (D,) int64, ids of image and class.
        boxes: (D, 4) float64, left, top, width, height in pixels.
        scores: (D,) float64.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Found:
        """Of COCO's result format: "image_id", "category_id", "bbox", "score"."""
        rows = list(rows)
        return cls(*_columns(rows), np.array([row["score"] for row in rows], np.float64))


@dataclass(frozen=True)
class Truth:
    """Objects of many images, G rows in any order; `image`, `label` and `boxes` as those of `Found`.

    Attributes:
        crowd: (G,) bool, regions in which detections are neither right nor wrong.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Truth:
        """Of COCO's annotations: "image_id", "category_id", "bbox", and "iscrowd" where it is 1."""
        rows = list(rows)
        return cls(*_columns(rows), np.array([bool(row.get("iscrowd", 0)) for row in rows], bool))


@dataclass(frozen=True)
class Matches:
    """What `match` found, for D detections.

    Attributes:
        gt: (D,) int64 row of the object that was found; -1 for none.
        ignored: (D,) bool, what counts neither as right nor as wrong: what lies in a crowd region, and what is beyond
            the limit of detections.
        iou: (D,) float64 overlap with that object; 0 for none.
    """

    gt: np.ndarray
    ignored: np.ndarray
    iou: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(D,) bool, detections that found an object."""
        return (self.gt >= 0) & ~self.ignored


def match(found: Found, truth: Truth, iou: float = 0.5, limit: int = 100, across_classes: bool = False) -> Matches:
    """Give each detection, best score first, the object that it overlaps most and that is still free.

    As in COCO: an object is found once, a crowd region any number of times, and only where no object is overlapped
    enough; of equal scores the first detection chooses first, of equal overlaps the last object is taken. Objects of
    all areas count.

    Args:
        found, truth: detections and objects of the same images.
        iou: least overlap. Of a crowd region it is the share of the detection that lies in it.
        limit: how many detections of an image and class are looked at; the best ones.
        across_classes: whether a detection may find an object of another class (for confusion matrices).
    """
    count, total = len(found.scores), len(truth.crowd)
    ours, theirs = _groups(found, truth, across_classes)
    order = np.lexsort((found.label, -found.scores, ours))  # stable; group by group, best first
    gt, ignored, overlap = np.full(count, -1), np.zeros(count, bool), np.zeros(count)
    ignored[order] = _place(ours[order]) >= limit
    order = order[~ignored[order]]
    det, obj, share = _pairs(found, truth, order, ours, theirs, min(iou, 1 - LEAST_GAP))
    # What each detection wants most comes last: an object rather than a crowd region, more overlap, a later row.
    rows = np.lexsort((obj, truth.label[obj], share, ~truth.crowd[obj], det))
    det, obj, share = det[rows], obj[rows], share[rows]
    rank = np.full(len(order), -1)  # which of the detections of its group that overlap anything it is
    with_pairs = np.unique(det)
    rank[with_pairs] = _place(ours[order[with_pairs]])
    free, turns = np.ones(total, bool), rank[det]
    by_turn = np.argsort(turns, kind="stable")
    for turn in np.split(by_turn, np.flatnonzero(np.diff(turns[by_turn])) + 1) if len(det) else ():
        left = turn[free[obj[turn]]]
        last = left[np.append(det[left][1:] != det[left][:-1], True)] if len(left) else left
        row = order[det[last]]
        gt[row], overlap[row], ignored[row] = obj[last], share[last], truth.crowd[obj[last]]
        free[obj[last]] = truth.crowd[obj[last]]
    return Matches(gt, ignored, overlap)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, m) IoU of all pairs of two lists of boxes, (n, 4) and (m, 4) float64 left, top, width, height."""
    pairs = np.repeat(boxes, len(others), axis=0), np.tile(others, (len(boxes), 1))
    return _iou(*pairs, np.zeros(len(pairs[0]), bool)).reshape(len(boxes), len(others))


def best_overlaps(found: Found, truth: Truth) -> np.ndarray:
    """(D,) float64: the largest IoU of each detection with an object of its class and image, found already or not."""
    there = np.flatnonzero(~truth.crowd)
    objects = Truth(truth.image[there], truth.label[there], truth.boxes[there], truth.crowd[there])
    ours, theirs = _groups(found, objects, across_classes=False)
    det, _, share = _pairs(found, objects, np.arange(len(ours)), ours, theirs, LEAST_GAP)
    best = np.zeros(len(ours))
    np.maximum.at(best, det, share)
    return best


def object_overlaps(truth: Truth) -> np.ndarray:
    """(G,) float64: the largest IoU of each object with another one of its image, whatever their classes.

    Crowd regions have 0 and count for no other object.
    """
    there = np.flatnonzero(~truth.crowd)
    objects = Truth(truth.image[there], truth.label[there], truth.boxes[there], truth.crowd[there])
    others = Found(objects.image, objects.label, objects.boxes, np.zeros(len(there)))
    ours, theirs = _groups(others, objects, across_classes=True)
    one, other, share = _pairs(others, objects, np.arange(len(there)), ours, theirs, LEAST_GAP)
    best = np.zeros(len(truth.crowd))
    different = one != other
    np.maximum.at(best, there[one[different]], share[different])
    return best


def _columns(rows: list[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, label = (np.array([row[key] for row in rows], np.int64) for key in ("image_id", "category_id"))
    return image, label, np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)


def _groups(found: Found, truth: Truth, across_classes: bool) -> tuple[np.ndarray, np.ndarray]:
    """A number for each detection, and for each object, equal where they may match: those of image and class."""
    _, image = np.unique(np.concatenate((found.image, truth.image)), return_inverse=True)
    labels, label = np.unique(np.concatenate((found.label, truth.label)), return_inverse=True)
    group = image if across_classes else image * len(labels) + label
    return group[: len(found.image)], group[len(found.image) :]


def _place(group: np.ndarray) -> np.ndarray:
    """For rows sorted by group, which one of its group each is, from 0 on."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _pairs(
    found: Found, truth: Truth, order: np.ndarray, ours: np.ndarray, theirs: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in `order`, rows of `truth` and overlaps of all pairs of one group that overlap enough."""
    objects = np.argsort(theirs, kind="stable")
    first, end = (np.searchsorted(theirs[objects], ours[order], side=side) for side in ("left", "right"))
    ends = np.cumsum(end - first)
    parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _PAIRS, side="right")), start + 1)
        det = np.repeat(np.arange(start, stop), (end - first)[start:stop])
        obj = objects[np.arange(len(det)) + before - (ends - end)[det]]
        share = _iou(found.boxes[order[det]], truth.boxes[obj], truth.crowd[obj])
        enough = share >= least
        parts.append((det[enough], obj[enough], share[enough]))
        start = stop
    det, obj, share = (np.concatenate(column) for column in zip(*parts))
    return det, obj, share


def _iou(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of pairs of (P, 4) boxes, as pycocotools computes it; of crowd regions the share of the first box in them."""
    near = np.maximum(boxes[:, :2], others[:, :2])
    far = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    side = (far - near).clip(min=0)
    common, area = side[:, 0] * side[:, 1], boxes[:, 2] * boxes[:, 3]
    union = np.where(crowd, area, area + others[:, 2] * others[:, 3] - common)
    return np.divide(common, union, out=np.zeros(len(boxes)), where=common > 0)
