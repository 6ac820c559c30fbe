"""Recall of proposals: by hand, against Detectron2's evaluator, and over the number of proposals."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from fcos_d2.evaluation.coco import FastCOCOEvaluator
from fcos_d2.evaluation.proposals import LIMITS, Recall, best_first, matched, shares_of

IOUS = [0.5 + 0.05 * i for i in range(10)]


def proposals_of(boxes, logits=None, size=(480, 640)):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    logits = torch.arange(len(boxes), 0, -1).float() if logits is None else torch.as_tensor(logits).float()
    return Instances(size, proposal_boxes=Boxes(boxes), objectness_logits=logits)


def object_of(image, box, **more):
    return {"image_id": image, "bbox": box, "area": box[2] * box[3], "iscrowd": 0, **more}


def test_by_hand():
    """Two objects, the better box third in rank: one proposal reaches none, three reach one."""
    truth = [object_of(1, [0, 0, 10, 10]), object_of(1, [100, 100, 40, 40]), object_of(1, [0, 0, 9, 9], iscrowd=1)]
    boxes = best_first(proposals_of([[300, 300, 310, 310], [0, 0, 10, 8], [500, 0, 510, 9]], [0.1, -3.0, 2.0]))
    found = Recall.of([(1, boxes)], truth)
    rows = {row["proposals"]: row for row in found.curve()}
    assert (rows[2]["AR"], rows[5]["recall"]) == (0.0, 0.5)
    assert rows[5]["AR"] == pytest.approx(0.5 * sum(iou <= 0.8 + 1e-6 for iou in IOUS) / 10)
    assert found.average("s") == pytest.approx(2 * rows[5]["AR"]) and found.average("m") == 0.0
    assert math.isnan(found.average("l"))
    assert shares_of(found.metrics())["AR_large@100"] is None


def test_an_image_without_proposals_counts():
    """Detectron2's evaluator leaves its objects out."""
    truth = [object_of(image, [0, 0, 10, 10]) for image in (1, 2)]
    found = Recall.of([(1, best_first(proposals_of([[0, 0, 10, 10]]))), (2, torch.zeros(0, 4))], truth)
    assert found.metrics()["AR@100"] == 50.0 and found.images == 2
    assert Recall.of([(1, best_first(proposals_of([])))], []).curve()[0]["AR"] is None


def test_each_proposal_serves_one_object():
    truth = [object_of(1, [0, 0, 10, 10]), object_of(1, [0, 1, 10, 10])]
    found = Recall.of([(1, torch.tensor([[0.0, 0.0, 10.0, 10.0]]))], truth)
    assert found.overlaps["", 100].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (4, 3), (3, 4)])
def test_pairs_are_taken_from_the_best_on(shape):
    """The slow way: all pairs sorted by IoU, each taken if both are free."""
    for seed in range(20):
        iou = np.random.default_rng(seed).random(shape).astype(np.float32)
        expected, used = np.zeros(shape[1], np.float32), set()
        for row, column in sorted(itertools.product(*map(range, shape)), key=lambda pair: -iou[pair]):
            if not {("row", row), ("column", column)} & used:
                expected[column] = iou[row, column]
                used |= {("row", row), ("column", column)}
        assert matched(iou).tolist() == expected.tolist()


@pytest.fixture
def registered(tmp_path):
    """A data set of random boxes of all sizes, crowds among them, in Detectron2's catalog."""
    draw = np.random.default_rng(3)
    images = [{"id": i, "height": 480, "width": 640, "file_name": f"{i}.jpg"} for i in range(1, 13)]
    annotations = []
    for image in images:
        for _ in range(draw.integers(0, 9)):
            side = np.exp(draw.uniform(np.log(8), np.log(300), 2))
            box = [*draw.uniform(0, 300, 2).tolist(), *side.tolist()]
            crowd = int(draw.random() < 0.1)
            row = {"id": len(annotations) + 1, "category_id": 1, **object_of(image["id"], box, iscrowd=crowd)}
            annotations.append(row)
    file = tmp_path / "truth.json"
    categories = [{"id": 1, "name": "thing"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    name = "recall_of_proposals"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(json_file=str(file), thing_classes=["thing"])
    yield name, images, annotations
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def around(draw, annotations, image):
    """Proposals near objects and anywhere, in no order."""
    own = [row["bbox"] for row in annotations if row["image_id"] == image]
    near = [np.array(box) + draw.normal(0, 0.1, 4) * (box[2:] * 2) for box in own for _ in range(draw.integers(1, 30))]
    boxes = np.array([*near, *draw.uniform(5, 300, (300, 4))])
    boxes[:, 2:] = boxes[:, :2] + np.abs(boxes[:, 2:]) + 1
    return proposals_of(boxes, draw.normal(0, 3, len(boxes)))


def test_numbers_are_detectron2s(registered):
    name, images, annotations = registered
    draw = np.random.default_rng(5)
    outputs = [{"proposals": around(draw, annotations, image["id"])} for image in images]
    inputs = [{"image_id": image["id"]} for image in images]
    found = []
    for evaluator in (FastCOCOEvaluator(name, distributed=False), COCOEvaluator(name, distributed=False)):
        evaluator.reset()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.process(inputs, outputs)
            found.append(evaluator.evaluate()["box_proposals"])
    ours, theirs = found
    assert list(ours) == list(theirs) == [f"AR{size}@{limit}" for limit in LIMITS for size in ("", "s", "m", "l")]
    assert ours == pytest.approx(theirs, abs=1e-4, nan_ok=True)
    assert 20 < ours["AR@100"] < ours["AR@1000"] < 95


def test_detections_and_proposals_of_one_model(registered):
    """Both are evaluated, and the recall rises with the number of proposals."""
    name, images, annotations = registered
    evaluator, draw = FastCOCOEvaluator(name, distributed=False), np.random.default_rng(5)
    evaluator.reset()
    for image in images:
        own = around(draw, annotations, image["id"])
        fields = {"pred_boxes": own.proposal_boxes, "scores": own.objectness_logits.sigmoid()}
        found = Instances(own.image_size, pred_classes=torch.zeros(len(own), dtype=torch.int64), **fields)
        evaluator.process([{"image_id": image["id"]}], [{"instances": found, "proposals": own}])
    with contextlib.redirect_stdout(io.StringIO()):
        results = evaluator.evaluate()
    assert set(results) == {"bbox", "box_proposals"}
    curve = evaluator.recall.curve()
    assert [row["AR"] for row in curve] == sorted(row["AR"] for row in curve)
    few = evaluator.evaluate([images[0]["id"]])["box_proposals"]
    assert few != results["box_proposals"]
    evaluator.reset()
    assert evaluator.recall is None
