"""COCO's numbers for parts of a data set: those of the evaluator where they are the same thing, else by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from fcos_d2.data import DatasetNames
from fcos_d2.evaluation.breakdown import (
    OVERLAPS,
    Numbers,
    Objects,
    class_agnostic,
    evaluated,
    recall_by_overlap,
    summary,
)
from fcos_d2.evaluation.coco import FastCOCOEvaluator
from fcos_d2.evaluation.matching import Found, Truth, best_overlaps, object_overlaps
from fcos_d2.evaluation.scores import scores


def objects_of(rows: list[tuple[int, int, list[float]]], images: int = 3, classes: int = 2) -> Objects:
    """(image, class, xywh) of each object."""
    truth = Truth.of([{"image_id": i, "category_id": k, "bbox": box} for i, k, box in rows])
    records = [{"image_id": i, "file_name": f"{i}.jpg"} for i in range(images)]
    names = tuple(f"class {k}" for k in range(classes))
    return Objects("made", records, names, truth, truth.boxes[:, 2] * truth.boxes[:, 3])


def found_of(rows: list[tuple[int, int, list[float], float]]) -> Found:
    return Found.of([{"image_id": i, "category_id": k, "bbox": box, "score": s} for i, k, box, s in rows])


@pytest.fixture
def objects(data: DatasetNames) -> Objects:
    return Objects.of(data.val or "")


def near(objects: Objects, seed: int = 0) -> Found:
    """Detections near the objects, some of other classes, some twice."""
    draw, truth = np.random.default_rng(seed), objects.truth
    rows = np.repeat(np.arange(len(truth.crowd)), 3)
    boxes = (truth.boxes[rows] + draw.normal(0, 2, (len(rows), 4))).clip(1).astype(np.float32).astype(np.float64)
    label = np.where(draw.random(len(rows)) < 0.2, draw.integers(0, len(objects.class_names), len(rows)),
                     truth.label[rows])  # fmt: skip
    return Found(truth.image[rows], label, boxes, draw.random(len(rows)).astype(np.float32).astype(np.float64))


def test_numbers_are_those_of_the_evaluator(data: DatasetNames, objects: Objects) -> None:
    found, evaluator = near(objects), FastCOCOEvaluator(data.val or "", distributed=False)
    for place, record in enumerate(DatasetCatalog.get(data.val)):
        rows = found.image == place
        corners = np.concatenate((found.boxes[rows, :2], found.boxes[rows, :2] + found.boxes[rows, 2:]), 1)
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes, instances.scores = Boxes(torch.from_numpy(corners)), torch.from_numpy(found.scores[rows])
        instances.pred_classes = torch.from_numpy(found.label[rows])
        evaluator.process([record], [{"instances": instances}])
    expected = scores(evaluator.evaluate(), data.val or "")
    numbers = evaluated(objects, found)
    told = summary(numbers)
    for key in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"):
        assert told[key] == (None if expected[key] is None else pytest.approx(expected[key], abs=1e-6)), key
    for k, name in enumerate(objects.class_names):
        assert numbers.ap(label=k) == pytest.approx(expected["per_class"][name], abs=1e-6)
    assert 0.1 < told["AP"] < 0.95 and told["AR1"] < told["AR100"]
    curve = numbers.curve(0.5)
    assert curve.mean() == pytest.approx(told["AP50"]) and (np.diff(curve) <= 1e-12).all()


def test_classes_aside_only_places_count() -> None:
    objects = objects_of([(0, 0, [10, 10, 40, 40]), (1, 1, [5, 5, 60, 30])])
    swapped = found_of([(0, 1, [10, 10, 40, 40], 0.9), (1, 0, [5, 5, 60, 30], 0.8)])
    assert evaluated(objects, swapped).ap() == 0.0
    merged = class_agnostic(objects, swapped)
    assert merged.ap() == merged.ap(0.9) == merged.most_recall(0.9) == pytest.approx(1.0)
    assert merged.curve(0.9).tolist() == pytest.approx([1.0] * 101)


def test_nothing_found_is_zero_and_nothing_there_is_none() -> None:
    objects, nothing = objects_of([(0, 0, [10, 10, 40, 40])]), found_of([])
    numbers = evaluated(objects, nothing)
    assert (numbers.ap(), numbers.ap(0.5, 0), numbers.ap(label=1)) == (0.0, 0.0, None)
    assert (numbers.ap(size="medium"), numbers.ap(size="small"), numbers.ar(1)) == (0.0, None, 0.0)
    assert np.isnan(evaluated(objects_of([]), nothing).curve(0.5)).all()
    assert evaluated(objects, nothing, images=[1, 2]).ap() is None
    one = evaluated(objects, found_of([(1, 0, [0, 0, 9, 9], 0.5)]), images=[1, 2])
    assert isinstance(one, Numbers) and one.ap() is None  # no object in these images


def test_a_part_of_the_images() -> None:
    objects = objects_of([(0, 0, [10, 10, 40, 40]), (1, 0, [10, 10, 40, 40])])
    found = found_of([(0, 0, [10, 10, 40, 40], 0.9)])
    assert evaluated(objects, found, images=[0]).ap() == pytest.approx(1.0)
    assert evaluated(objects, found, images=np.array([1])).ap() == 0.0
    assert 0.4 < (evaluated(objects, found).ap() or 0) < 0.6


def test_overlaps_by_hand() -> None:
    rows = [
        (0, 0, [0, 0, 10, 10]), (0, 1, [5, 0, 10, 10]),  # a third of their union
        (1, 0, [0, 0, 10, 10]), (1, 0, [10, 0, 10, 10]),  # they touch
        (2, 0, [0, 0, 10, 10]), (2, 0, [0, 0, 10, 10]),  # the same place
    ]  # fmt: skip
    objects = objects_of(rows)
    assert object_overlaps(objects.truth).tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0, 1, 1])
    assert objects.overlapping().tolist() == [0, 2]
    crowd = replace(objects.truth, crowd=np.array([False, True, False, False, False, False]))
    assert object_overlaps(crowd).tolist() == pytest.approx([0, 0, 0, 0, 1, 1])
    found = found_of([(0, 0, [0, 0, 10, 10], 0.5), (1, 0, [0, 0, 10, 10], 0.5), (2, 0, [0, 0, 10, 10], 0.5)])
    told = recall_by_overlap(objects, found)
    assert told == {"none": (2, 1), "below 0.2": (0, 0), "0.2 to 0.5": (2, 1), "from 0.5": (2, 1)}
    assert list(told) == list(OVERLAPS)


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_of_many(seed: int, objects: Objects) -> None:
    """Against one pair after the other."""

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        side = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
        both = side.clip(0).prod()
        return both / (a[2:].prod() + b[2:].prod() - both)

    found, truth = near(objects, seed), objects.truth
    expected = [
        max([iou(box, truth.boxes[g]) for g in range(len(truth.crowd))
             if (truth.image[g], truth.label[g]) == (image, label) and not truth.crowd[g]], default=0.0)
        for image, label, box in zip(found.image, found.label, found.boxes)
    ]  # fmt: skip
    assert best_overlaps(found, truth) == pytest.approx(np.array(expected))
    shared = [
        max([iou(truth.boxes[g], truth.boxes[h]) for h in range(len(truth.crowd))
             if h != g and truth.image[h] == truth.image[g] and not (truth.crowd[h] or truth.crowd[g])], default=0.0)
        for g in range(len(truth.crowd))
    ]  # fmt: skip
    assert object_overlaps(truth) == pytest.approx(np.array(shared))
