"""What is taken for what, by cases that can be counted on paper."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode

from fcos_d2.evaluation.confusion import best_hits, confusion, false_alarms, largest_misses, overlap, pairs, report
from fcos_d2.evaluation.matching import Found, Truth

CAT, DOG, BACK = 0, 1, 2
RECORDS = [{"image_id": number, "file_name": f"{number}.jpg"} for number in range(4)]


def table(*rows):
    """(image, class, box as left, top, width, height, score or crowd) as columns."""
    image, label, boxes, last = zip(*rows) if rows else ((), (), (), ())
    return (
        np.array(image, np.int64), np.array(label, np.int64), np.array(boxes, np.float64).reshape(-1, 4), np.array(last)
    )  # fmt: skip


def counted(found, truth, **options):
    *objects, crowd = table(*truth)
    return pairs(Found(*table(*found)), Truth(*objects, crowd.astype(bool)), RECORDS, **options)


def matrix_of(found, truth, **options):
    return confusion(counted(found, truth, **options), 2).tolist()


BOX, FAR = (0, 0, 10, 10), (50, 50, 10, 10)


def test_each_kind_of_outcome_has_its_cell():
    truth = [(0, CAT, BOX, False), (0, DOG, FAR, False), (1, DOG, BOX, False), (2, CAT, BOX, False)]
    found = [(0, CAT, BOX, 0.9), (0, CAT, FAR, 0.8), (1, DOG, FAR, 0.7), (3, CAT, BOX, 0.6)]
    # a cat found, a dog taken for a cat, a dog missed and something seen elsewhere, a cat missed, a cat out of nothing
    assert matrix_of(found, truth) == [[1, 0, 1], [1, 0, 1], [1, 1, 0]]


def test_the_better_score_takes_the_object_whatever_its_class():
    truth = [(0, CAT, BOX, False)]
    assert matrix_of([(0, CAT, BOX, 0.6), (0, DOG, (0, 0, 10, 9), 0.9)], truth) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert matrix_of([(0, CAT, BOX, 0.9), (0, DOG, (0, 0, 10, 9), 0.6)], truth) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_second_detection_of_an_object_is_a_false_one():
    assert matrix_of([(0, CAT, BOX, 0.9), (0, CAT, BOX, 0.8)], [(0, CAT, BOX, False)]) == [
        [1, 0, 0],
        [0] * 3,
        [1, 0, 0],
    ]


@pytest.mark.parametrize(("height", "hit"), [(5.1, True), (4.9, False)])
def test_iou_decides(height, hit):
    found = matrix_of([(0, CAT, (0, 0, 10, height), 0.9)], [(0, CAT, BOX, False)])
    assert found == ([[1, 0, 0], [0] * 3, [0] * 3] if hit else [[0, 0, 1], [0] * 3, [1, 0, 0]])


def test_scores_up_to_the_threshold_do_not_count():
    truth = [(0, CAT, BOX, False)]
    assert matrix_of([(0, CAT, BOX, 0.5)], truth, min_score=0.5) == [[0, 0, 1], [0] * 3, [0] * 3]
    assert matrix_of([(0, CAT, BOX, 0.51)], truth, min_score=0.5) == [[1, 0, 0], [0] * 3, [0] * 3]


def test_crowds_are_neither_missed_nor_wrong():
    assert matrix_of([(0, DOG, (20, 20, 5, 5), 0.9)], [(0, CAT, (0, 0, 90, 90), True)]) == [[0] * 3] * 3


def test_nothing_found_and_nothing_there():
    assert matrix_of([], []) == [[0] * 3] * 3
    assert matrix_of([], [(0, CAT, BOX, False)]) == [[0, 0, 1], [0] * 3, [0] * 3]
    assert matrix_of([(0, DOG, BOX, 0.9)], []) == [[0] * 3, [0] * 3, [0, 1, 0]]


def test_nothing_is_lost():
    """Rows add up to the objects of each class, columns to the detections, whatever lies where."""
    rng = np.random.default_rng(0)

    def some(count):
        boxes = np.concatenate((rng.uniform(0, 60, (count, 2)), rng.uniform(1, 60, (count, 2))), 1)
        return rng.integers(0, 4, count), rng.integers(0, 2, count), boxes

    truth, found = Truth(*some(300), np.zeros(300, bool)), Found(*some(500), rng.uniform(0, 1, 500))
    matrix = confusion(pairs(found, truth, RECORDS, min_score=0.3), 2)
    assert matrix.sum(1)[:2].tolist() == np.bincount(truth.label).tolist()
    assert matrix.sum(0)[:2].tolist() == np.bincount(found.label[found.scores > 0.3]).tolist()
    assert matrix[BACK, BACK] == 0 and (matrix > 0).sum() == 8


def test_report_names_and_sums():
    told = report(np.array([[8, 1, 1], [0, 0, 0], [2, 3, 0]]), ["cat", "cat"], 0.5, 0.4)
    assert told["classes"] == ["cat", "cat (2)", "background"] and (told["iou"], told["score"]) == (0.5, 0.4)
    assert told["per_class"]["cat"] == {
        "objects": 10, "found": 8, "missed": 1, "taken_for_others": 1, "false_alarms": 2, "precision": 0.8,
        "recall": 0.8,
    }  # fmt: skip
    assert told["per_class"]["cat (2)"]["recall"] is None and told["per_class"]["cat (2)"]["precision"] == 0.0
    assert told["most_confused"] == [{"truth": "cat", "found": "cat (2)", "count": 1}]


def test_worst_and_best_come_first_and_from_several_images():
    truth = [(0, CAT, (0, 0, n, n), False) for n in (30, 20, 10)] + [(1, DOG, (0, 0, 5, 5), False)]
    missed = largest_misses(counted([], truth), 10)
    assert [(p.record["file_name"], p.truth[2]) for p in missed] == [("0.jpg", 30), ("0.jpg", 20), ("1.jpg", 5)]
    found = [(2, CAT, BOX, 0.7), (3, DOG, BOX, 0.9), (1, CAT, (0, 0, 5, 5), 0.8)]
    wrong = false_alarms(counted(found, truth), 2)
    assert [(p.score, p.truth_class) for p in wrong] == [(0.9, -1), (0.8, DOG)]
    hits = best_hits(counted([(0, CAT, (0, 0, 30, 24), 0.9), (1, DOG, (0, 0, 5, 5), 0.8)], truth), 5)
    assert [(p.score, round(p.iou, 2)) for p in hits] == [(0.8, 1.0), (0.9, 0.8)]


def test_overlap_of_a_detection_that_takes_nothing():
    boxes = [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": crowd} for box, crowd in ((BOX, 0), (FAR, 1))]
    record = {**RECORDS[0], "annotations": boxes}
    (near,) = pairs(
        Found(*table((0, CAT, (0, 0, 10, 4), 0.9))), Truth(*table((0, CAT, FAR, True))[:3], np.array([True])), [record]
    )
    assert overlap(near) == pytest.approx(0.4)
