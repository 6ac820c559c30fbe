"""What becomes of each object of a data set: found, taken for another class, or missed; and what is found elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .matching import Found, Truth, match
from .scores import distinct, true_boxes

__all__ = [
    "BACKGROUND", "Pair", "best_hits", "confusion", "false_alarms", "largest_misses", "overlap", "pairs", "report",
]  # fmt: skip

BACKGROUND = "background"
_ALL = 1 << 40  # detections of an image that are looked at
_IN_A_PICTURE = 2  # of the examples below that one image may give, so that they show several


@dataclass(frozen=True)
class Pair:
    """An object and the detection that takes it, or one of them alone.

    Boxes are (4,) xyxy float64 pixels of the image, None where there is none; a class is -1 then. The score is in 0..1.
    """

    record: Mapping[str, Any]  # of the image, in Detectron2's format
    truth: np.ndarray | None
    truth_class: int
    found: np.ndarray | None
    found_class: int
    score: float
    iou: float  # 0 where one of them is alone

    @property
    def box(self) -> np.ndarray:
        """Of the detection, else of the object."""
        box = self.truth if self.found is None else self.found
        assert box is not None
        return box

    @property
    def is_hit(self) -> bool:
        """Whether an object was found as what it is."""
        return self.truth_class == self.found_class


def pairs(
    found: Found, truth: Truth, records: Iterable[Mapping[str, Any]], iou: float = 0.5, min_score: float = 0.5
) -> list[Pair]:
    """Pair the detections of a data set with its objects.

    The detection of the highest score takes the object that it overlaps most, whatever the two classes, if their IoU
    is at least `iou`; then the next one, of those that are left. What takes none and lies in a crowd region is left
    out; see `matching.match`.

    Args:
        found, truth: detections and objects, labels being class indices; `FastCOCOEvaluator.tables`.
        records: the images in Detectron2's format; detections and objects in others are left out.
        iou: that a detection needs to take an object.
        min_score: detections of this score or less do not count.
    """
    by_id = {record["image_id"]: record for record in records}
    enough = (found.scores > min_score) & np.isin(found.image, list(by_id))
    found = Found(found.image[enough], found.label[enough], found.boxes[enough], found.scores[enough])
    matches = match(found, truth, iou, limit=_ALL, across_classes=True)
    boxes, objects = _corners(found.boxes), _corners(truth.boxes)
    result: list[Pair] = []
    for row in np.flatnonzero(~matches.ignored):
        gt, record = int(matches.gt[row]), by_id[found.image[row]]
        there, label = (None, -1) if gt < 0 else (objects[gt], int(truth.label[gt]))
        own, score = int(found.label[row]), float(found.scores[row])
        result.append(Pair(record, there, label, boxes[row], own, score, float(matches.iou[row])))
    alone = np.ones(len(truth.crowd), bool)
    alone[matches.gt[matches.right]] = False
    for row in np.flatnonzero(alone & ~truth.crowd & np.isin(truth.image, list(by_id))):
        result.append(Pair(by_id[truth.image[row]], objects[row], int(truth.label[row]), None, -1, 0.0, 0.0))
    return result


def _corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy of xywh."""
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def confusion(found: Iterable[Pair], num_classes: int) -> np.ndarray:
    """(K + 1, K + 1) int64 counts: a row for each true class, a column for each found one, background the last."""
    matrix = np.zeros((num_classes + 1,) * 2, np.int64)
    for pair in found:
        matrix[pair.truth_class, pair.found_class] += 1  # -1 is the last
    return matrix


def report(matrix: np.ndarray, names: Sequence[str], iou: float, min_score: float) -> dict[str, Any]:
    """The matrix as data: with names, the rules that it was counted by, and sums for each class; shares from 0 to 1."""
    labels, known = [*distinct(names), BACKGROUND], len(names)
    right, objects, said = matrix.diagonal()[:known], matrix.sum(1)[:known], matrix.sum(0)[:known]
    per_class = {
        name: {
            "objects": int(objects[i]), "found": int(right[i]), "missed": int(matrix[i, known]),
            "taken_for_others": int(objects[i] - right[i] - matrix[i, known]), "false_alarms": int(said[i] - right[i]),
            "precision": _share(right[i], said[i]), "recall": _share(right[i], objects[i]),
        } for i, name in enumerate(labels[:known])
    }  # fmt: skip
    wrong = Counter({
        (labels[i], labels[j]): int(matrix[i, j]) for i, j in zip(*np.nonzero(matrix)) if i != j and known not in (i, j)
    })  # fmt: skip
    return {
        "iou": iou, "score": min_score, "rows": "truth", "columns": "found", "classes": labels, "matrix": matrix,
        "per_class": per_class,
        "most_confused": [{"truth": a, "found": b, "count": count} for (a, b), count in wrong.most_common(20)],
    }  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def overlap(pair: Pair) -> float:
    """The largest IoU of a detection with an object of its image, whichever detection takes that."""
    best = 0.0
    for box in true_boxes(pair.record):
        other = np.asarray(BoxMode.convert(list(box["bbox"]), box["bbox_mode"], BoxMode.XYXY_ABS), np.float64)
        sides = np.minimum(pair.box[2:], other[2:]) - np.maximum(pair.box[:2], other[:2])
        both = float(sides.clip(min=0).prod())
        best = max(best, both / max(_area(pair.box) + _area(other) - both, 1e-12))
    return best


def largest_misses(found: Iterable[Pair], count: int) -> list[Pair]:
    """Objects that no detection took, those of the largest area first."""
    missed = [pair for pair in found if pair.found is None]
    return _spread(sorted(missed, key=lambda pair: -_area(pair.box)), count)


def false_alarms(found: Iterable[Pair], count: int) -> list[Pair]:
    """Detections where there is no object, or one of another class; those of the highest score first."""
    wrong = [pair for pair in found if pair.found is not None and not pair.is_hit]
    return _spread(sorted(wrong, key=lambda pair: -pair.score), count)


def best_hits(found: Iterable[Pair], count: int) -> list[Pair]:
    """Objects found as what they are, those of the highest score times IoU first."""
    return _spread(sorted((pair for pair in found if pair.is_hit), key=lambda pair: -pair.score * pair.iou), count)


def _area(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).prod())


def _spread(ranked: Iterable[Pair], count: int) -> list[Pair]:
    """The first of them, at most two of an image."""
    chosen: list[Pair] = []
    seen: Counter[str] = Counter()
    for pair in ranked:
        name = str(pair.record["file_name"])
        if len(chosen) < count and seen[name] < _IN_A_PICTURE:
            seen[name] += 1
            chosen.append(pair)
    return chosen
