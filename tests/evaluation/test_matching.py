"""Detections are matched as pycocotools matches them, detection by detection."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcos_d2.evaluation import matching
from fcos_d2.evaluation.matching import Found, Truth, match


def scene(seed: int, images: int = 5, classes: int = 3, objects: int = 6, detections: int = 30):
    """Objects and crowd regions of all sizes; detections near them, twice on one, or anywhere; scores that tie."""
    draw = np.random.default_rng(seed)
    truth, results = [], []
    for image in range(1, images + 1):
        boxes = [(draw.uniform(0, 80, 4).round(int(draw.integers(0, 3))) + [0, 0, 1, 1]).tolist() for _ in range(9)]
        for _ in range(draw.integers(0, objects + 1)):
            box, kind = boxes[draw.integers(9)], int(draw.integers(1, classes + 1))
            crowd = int(draw.random() < 0.2)
            row = {"id": len(truth) + 1, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd}
            truth.append({**row, "area": box[2] * box[3]})
        for _ in range(draw.integers(0, detections + 1)):
            box = boxes[draw.integers(9)]
            if draw.random() < 0.6:
                box = (np.array(box) + draw.normal(0, 1, 4) * draw.choice([0, 2, 6])).clip(0.5).tolist()
            kind, score = int(draw.integers(1, classes + 1)), round(float(draw.random()), int(draw.integers(1, 4)))
            results.append({"image_id": image, "category_id": kind, "bbox": box, "score": score})
    return truth, results


def by_pycocotools(truth, results, iou=0.5, limit=100, across_classes=False):
    """Row of the object for each detection, -1 for none, and whether it is ignored, from pycocotools' `evalImgs`."""
    gt = COCO()
    gt.dataset = copy.deepcopy(
        {
            "info": {},
            "images": [{"id": i} for i in range(1, 9)],
            "categories": [{"id": i} for i in range(1, 9)],
            "annotations": truth,
        }
    )
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(copy.deepcopy(results)), "bbox")
        evaluation.params.iouThrs, evaluation.params.maxDets = np.array([iou]), [limit]
        evaluation.params.useCats = int(not across_classes)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    rows = np.full(len(results), -1)
    ignored = np.ones(len(results), bool)  # what is beyond the limit is not in its tables
    for image in filter(None, evaluation.evalImgs):
        for i, found, skip in zip(image["dtIds"], image["dtMatches"][0], image["dtIgnore"][0]):
            rows[i - 1], ignored[i - 1] = int(found) - 1, bool(skip)
    return rows, ignored


def assert_equal(truth, results, **options):
    found = match(Found.of(results), Truth.of(truth), **options)
    gt, ignored = by_pycocotools(truth, results, **options)
    assert found.gt.tolist() == gt.tolist() and found.ignored.tolist() == ignored.tolist()
    assert ((found.iou > 0) == (gt >= 0)).all()
    return found


@pytest.mark.parametrize("options", [{}, {"iou": 0.75}, {"limit": 3}, {"across_classes": True}, {"iou": 1.0}], ids=str)
def test_equal_to_pycocotools(options, monkeypatch):
    monkeypatch.setattr(matching, "_PAIRS", 17)  # several blocks
    right = ignored = wrong = 0
    for seed in range(30):
        truth, results = scene(seed, images=1 + seed % 5, classes=1 + seed % 3)
        if results:
            found = assert_equal(truth, results, **options)
            right, ignored = right + int(found.right.sum()), ignored + int(found.ignored.sum())
            wrong += int((~found.right & ~found.ignored).sum())
    assert min(right, ignored, wrong) > 20  # these scenes say something


side = st.integers(0, 4).map(lambda x: 8.0 * x)
boxes = st.tuples(side, side, st.just(16.0), st.sampled_from([8.0, 16.0]))


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(1, 2), boxes, st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(1, 2), boxes, st.sampled_from([0.25, 0.5, 1.0])), min_size=1, max_size=12),
)
def test_equal_on_coarse_boxes(objects, detections):
    """Overlaps that are equal or just at the threshold, and tied scores."""
    truth = [
        {"id": i + 1, "image_id": 1, "category_id": kind, "bbox": list(box), "iscrowd": int(crowd), "area": 99.0}
        for i, (kind, box, crowd) in enumerate(objects)
    ]
    results = [{"image_id": 1, "category_id": kind, "bbox": list(box), "score": s} for kind, box, s in detections]
    assert_equal(truth, results)


def test_nothing_to_match():
    truth, results = scene(1)
    for rows, others in (([], truth), (results, []), ([], [])):
        found = match(Found.of(rows), Truth.of(others))
        assert found.gt.tolist() == [-1] * len(rows) and not found.ignored.any() and not found.right.any()


def test_a_detection_is_right_whatever_follows_it():
    """So one matching serves every score threshold."""
    truth, results = scene(4, detections=60)
    whole = match(Found.of(results), Truth.of(truth))
    for least in (0.2, 0.5, 0.8):
        kept = [i for i, row in enumerate(results) if row["score"] > least]
        part = match(Found.of(results[i] for i in kept), Truth.of(truth))
        assert part.gt.tolist() == whole.gt[kept].tolist()
