"""hotcoco's numbers are pycocotools', to the bit, and pycocotools takes over where they might not be."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import ListConfig
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fcos_d2.errors import FcosError
from fcos_d2.evaluation import coco as module
from fcos_d2.evaluation.coco import FastCOCOEvaluator, evaluate_boxes

needs_hotcoco = pytest.mark.skipif(module._hotcoco() is None, reason="hotcoco is not installed")


@pytest.fixture
def without_hotcoco(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # an import fails
    module._hotcoco.cache_clear()
    yield
    monkeypatch.undo()
    module._hotcoco.cache_clear()


def by_pycocotools(truth, results, img_ids=None):
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        found = COCOeval(gt, gt.loadRes(copy.deepcopy(results)), "bbox")
        if img_ids is not None:
            found.params.imgIds = img_ids
        found.evaluate()
        found.accumulate()
        found.summarize()
    return found


def assert_equal(truth, results, img_ids=None):
    """All twelve numbers, and all curves of all classes, areas and limits."""
    expected = by_pycocotools(truth, results, img_ids)
    found = evaluate_boxes(truth, results, img_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        found.summarize()
    assert np.array_equal(found.stats, expected.stats) and len(expected.stats) == 12
    for key in ("precision", "recall", "scores"):
        assert np.array_equal(found.eval[key], expected.eval[key]), key
    return expected.stats


def scene(seed, images=6, classes=4, objects=5, detections=20):
    """Ground truth of all sizes with crowds, empty images, areas of masks; detections near it or anywhere; ties."""
    draw = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 3 * i + 1, "height": 480, "width": 640} for i in range(images)],
        "categories": [{"id": 2 * i + 1, "name": f"class {i}"} for i in range(classes)],
        "annotations": [],
    }
    results = []
    for image in truth["images"]:
        boxes = []
        for _ in range(draw.integers(0, objects + 1)):
            size = np.exp(draw.uniform(np.log(4), np.log(300), 2))
            box = [*draw.uniform(0, 300, 2).tolist(), *size.tolist()]
            if draw.random() < 0.3:
                box = [float(max(round(x), 1)) for x in box]
            category = int(draw.choice(classes)) * 2 + 1
            boxes.append((box, category))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] * float(draw.choice([1.0, 0.5])),
                    "iscrowd": int(draw.random() < 0.15),
                }
            )
        for _ in range(draw.integers(0, detections + 1)):
            box, category = [*draw.uniform(0, 300, 4).tolist()], int(draw.choice(classes)) * 2 + 1
            if boxes and draw.random() < 0.6:
                box, category = boxes[draw.integers(len(boxes))]
                box = (np.array(box) + draw.normal(0, 1, 4) * box[2] * draw.choice([0, 0.02, 0.1])).clip(0).tolist()
            score = float(np.float32(draw.random())) if draw.random() < 0.5 else round(float(draw.random()), 1)
            results.append({"image_id": image["id"], "category_id": category, "bbox": box, "score": score})
    return truth, results


@needs_hotcoco
@pytest.mark.parametrize("detections", [5, 40, 300])  # 300 of few classes are more than the limit of 100
def test_equal_on_scenes(detections):
    best = 0.0
    for seed in range(25):
        truth, results = scene(seed, images=1 + seed % 7, classes=1 + seed % 5, detections=detections)
        if results:
            best = max(best, assert_equal(truth, results)[0])
    assert best > 0.1  # these scenes say something


small = st.integers(0, 6)
boxes = st.tuples(small, small, small, small).map(lambda box: [8.0 * x for x in box])
truths = st.tuples(st.integers(1, 3), st.integers(1, 2), boxes, st.sampled_from([0, 0, 0, 1]), st.integers(0, 3))
found = st.tuples(st.integers(1, 3), st.integers(1, 3), boxes, st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0]))


@needs_hotcoco
@settings(max_examples=150)
@given(st.lists(truths, max_size=12), st.lists(found, min_size=1, max_size=30), st.none() | st.lists(st.integers(1, 4)))
def test_equal_on_coarse_boxes(annotations, detections, img_ids):
    """Boxes on a coarse grid: overlaps that are equal, just at a threshold, or of boxes without area; tied scores."""
    truth = {
        "images": [{"id": i} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "never there"}],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd, "area": 900.0 * area}
            for i, (image, kind, box, crowd, area) in enumerate(annotations)
        ],
    }
    results = [{"image_id": i, "category_id": kind, "bbox": box, "score": s} for i, kind, box, s in detections]
    assert_equal(truth, results, img_ids or None)


@needs_hotcoco
def test_equal_whatever_the_order_and_the_fields():
    truth, results = scene(3)
    assert_equal(truth, results[::-1])
    for key in ("images", "categories", "annotations"):
        assert_equal({**truth, key: truth[key][::-1]}, results)
    foreign = {"id": 999, "image_id": 777, "category_id": 1, "bbox": [1.0, 1.0, 5.0, 5.0], "area": 25.0, "iscrowd": 0}
    more = [foreign, {**foreign, "id": 1000, "image_id": 1, "category_id": 777, "ignore": 1}]
    assert_equal({**truth, "annotations": [*truth["annotations"], *more]}, results)
    assert_equal({**truth, "annotations": []}, results)
    assert_equal(truth, results, img_ids=[4, 1, 4])


ODD = {
    "annotation 0": lambda truth, results: truth["annotations"][0].update(id=0),
    "an id twice": lambda truth, results: truth["annotations"][0].update(id=2),
    "a negative id": lambda truth, results: truth["annotations"][0].update(id=-2),
    "a name as id": lambda truth, results: truth["images"][0].update(id="one"),
    "a broken id": lambda truth, results: truth["annotations"][0].update(id=1.5),
    "a huge id": lambda truth, results: truth["annotations"][0].update(id=2**60),
    "a category twice": lambda truth, results: truth["categories"].append(dict(truth["categories"][0])),
    "no area": lambda truth, results: truth["annotations"][0].pop("area"),
    "no iscrowd": lambda truth, results: truth["annotations"][0].pop("iscrowd"),
    "an unknown image": lambda truth, results: results[0].update(image_id=5555),
    "no number as score": lambda truth, results: results[0].update(score=float("nan")),
}


@needs_hotcoco
@pytest.mark.parametrize("name", ODD)
def test_odd_data_are_left_to_pycocotools(name):
    truth, results = scene(3)
    assert evaluate_boxes(truth, results) is not None
    ODD[name](truth, results)
    assert evaluate_boxes(truth, results) is None


@pytest.fixture
def dataset(tmp_path):
    """A registered data set, and what a model might say about its images."""
    truth, _ = scene(5, images=8)
    (tmp_path / "truth.json").write_text(json.dumps({"info": {}, **truth}))
    name = "coco_evaluation_test"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(
        json_file=str(tmp_path / "truth.json"),
        thing_classes=[c["name"] for c in truth["categories"]],
        thing_dataset_id_to_contiguous_id={c["id"]: i for i, c in enumerate(truth["categories"])},
    )
    draw = torch.Generator().manual_seed(0)
    outputs = []
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        xywh = torch.tensor([a["bbox"] for a in own]).reshape(-1, 4).repeat(3, 1)
        xywh += torch.randn(xywh.shape, generator=draw) * 4
        instances = Instances((480, 640))
        instances.pred_boxes = Boxes(torch.cat((xywh[:, :2], xywh[:, :2] + xywh[:, 2:].clamp(min=1)), dim=1))
        instances.scores = torch.rand(len(xywh), generator=draw)
        instances.pred_classes = torch.tensor([a["category_id"] // 2 for a in own] * 3, dtype=torch.int64)
        outputs.append(({"image_id": image["id"]}, {"instances": instances}))
    yield name, outputs
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def evaluated(cls, dataset, img_ids=None, **options):
    name, outputs = dataset
    evaluator = cls(name, distributed=False, **options)
    evaluator.reset()
    for inputs, output in outputs:
        evaluator.process([inputs], [copy.deepcopy(output)])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        results = evaluator.evaluate(img_ids)
    return results, printed.getvalue()


def summary(printed):
    """The lines of pycocotools' summary."""
    return [line for line in printed.splitlines() if "Average" in line]


class Watch:
    """Counts what pycocotools evaluates."""

    def __init__(self, monkeypatch):
        self.count = 0
        evaluate = COCOeval.evaluate

        def counting(this):
            self.count += 1
            return evaluate(this)

        monkeypatch.setattr(COCOeval, "evaluate", counting)


@needs_hotcoco
def test_evaluator(dataset, monkeypatch, tmp_path):
    expected, text = evaluated(COCOEvaluator, dataset, use_fast_impl=False)
    assert expected["bbox"]["AP"] > 5 and "AP-class 3" in expected["bbox"]
    watch, theirs = Watch(monkeypatch), coco_evaluation._evaluate_predictions_on_coco
    results, printed = evaluated(FastCOCOEvaluator, dataset, output_dir=str(tmp_path / "out"))
    np.testing.assert_equal(results, expected)  # exactly; NaN is NaN
    assert watch.count == 0 and coco_evaluation._evaluate_predictions_on_coco is theirs
    assert summary(printed) == summary(text) and len(summary(text)) == 12
    assert (tmp_path / "out" / "coco_instances_results.json").is_file()
    some = [1, 4, 7]
    np.testing.assert_equal(
        evaluated(FastCOCOEvaluator, dataset, some)[0],
        evaluated(COCOEvaluator, dataset, some, use_fast_impl=False)[0],
    )


def test_evaluator_without_hotcoco(dataset, monkeypatch, without_hotcoco, caplog):
    expected, _ = evaluated(COCOEvaluator, dataset, use_fast_impl=False)
    watch = Watch(monkeypatch)
    with caplog.at_level(logging.INFO, "fcos_d2"):
        for _ in range(2):
            np.testing.assert_equal(evaluated(FastCOCOEvaluator, dataset)[0], expected)
    assert watch.count == 2
    assert caplog.text.count("pip install hotcoco") == 1


@pytest.mark.parametrize("limit", [2, 30])
def test_one_limit_means_what_it_does_in_detectron2(dataset, limit):
    """Of [1, 10, 2], too, AP takes the largest."""
    expected, text = evaluated(COCOEvaluator, dataset, use_fast_impl=False, max_dets_per_image=limit)
    results, printed = evaluated(FastCOCOEvaluator, dataset, max_dets_per_image=limit)
    np.testing.assert_equal(results, expected)
    assert summary(printed) == summary(text)


@pytest.fixture
def crowded(tmp_path):
    """150 objects of a class in an image and 10 of another, all of them found."""
    left, top = torch.arange(160) % 16 * 40.0, torch.arange(160) // 16 * 40.0
    boxes = torch.stack((left, top, left + 30, top + 30), 1)
    kinds = (torch.arange(160) >= 150).long()
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "many"}, {"id": 2, "name": "few"}]}
    truth["annotations"] = [
        {"id": n + 1, "image_id": 1, "category_id": kind + 1, "bbox": [x, y, 30, 30], "area": 900, "iscrowd": 0}
        for n, ((x, y, *_), kind) in enumerate(zip(boxes.tolist(), kinds.tolist()))
    ]
    (tmp_path / "crowded.json").write_text(json.dumps(truth))
    found = Instances((480, 640), pred_boxes=Boxes(boxes), scores=torch.linspace(1, 0.1, 160), pred_classes=kinds)
    name = "coco_evaluation_crowded"
    MetadataCatalog.get(name).set(
        json_file=str(tmp_path / "crowded.json"), thing_classes=["many", "few"],
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
    )  # fmt: skip
    yield name, [({"image_id": 1}, {"instances": found})]
    MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    "limits", [[1, 10, 300], (300, 10, 1), [300], 300, [1, 10, 100, 300], ListConfig([10, 300])], ids=str
)
def test_ap_counts_as_many_detections_as_the_largest_limit(crowded, monkeypatch, limits):
    usual, _ = evaluated(FastCOCOEvaluator, crowded)
    assert usual["bbox"]["AP-few"] == pytest.approx(100) and usual["bbox"]["AP-many"] == pytest.approx(67, abs=1)
    fast, printed = evaluated(FastCOCOEvaluator, crowded, max_dets_per_image=limits)
    assert fast["bbox"]["AP"] == fast["bbox"]["AP-many"] == fast["bbox"]["APs"] == pytest.approx(100)
    several = [1, 10, limits] if isinstance(limits, int) else sorted(limits)
    assert [line.split("maxDets=")[1].split("]")[0].strip() for line in summary(printed) if "area=   all" in line] == [
        *["300"] * 3, *map(str, several)
    ]  # fmt: skip
    np.testing.assert_equal(fast, evaluated(COCOEvaluator, crowded, use_fast_impl=False, max_dets_per_image=300)[0])
    monkeypatch.setattr(module, "_hotcoco", lambda: None)
    slow, text = evaluated(FastCOCOEvaluator, crowded, max_dets_per_image=limits)
    np.testing.assert_equal(slow, fast)
    assert text == printed


@pytest.mark.parametrize("limits", [0, -1, 2.5, "300", [], [1, "10"], True, [1, None]], ids=str)
def test_limits_are_whole_numbers(crowded, limits):
    with pytest.raises(FcosError, match=r"max_dets_per_image is .*; it must be a number above 0, or several"):
        FastCOCOEvaluator(crowded[0], max_dets_per_image=limits)


@needs_hotcoco
def test_other_limits_are_equal_on_scenes():
    for seed in range(5):
        truth, results = scene(seed, images=2, classes=2, detections=300)
        found, expected = (
            f(truth, copy.deepcopy(results), None, (5, 50, 200)) for f in (evaluate_boxes, module._by_pycocotools)
        )
        for key in ("precision", "recall", "scores"):
            assert np.array_equal(found.eval[key], expected.eval[key]), key


ODD_FIELDS = {
    "CVAT": lambda truth: [row.update(date_captured=0, license="", flickr_url=None) for row in truth["images"]],
    "sizes": lambda truth: [row.update(width="640", height=480.5, file_name=3) for row in truth["images"]],
    "no sizes": lambda truth: [(row.pop("width"), row.pop("height")) for row in truth["images"]],
    "categories": lambda truth: [row.update(name=None, supercategory=7, keypoints="x") for row in truth["categories"]],
    "masks": lambda truth: [row.update(segmentation="x", keypoints={}, attributes=[]) for row in truth["annotations"]],
    "NaN": lambda truth: [row.update(score=float("nan"), track=float("inf")) for row in truth["annotations"]],
    "info": lambda truth: truth.update(info=[None], licenses="none", videos=3),
}


@needs_hotcoco
@pytest.mark.parametrize("name", ODD_FIELDS)
def test_fields_that_boxes_do_not_need_change_nothing(dataset, name, monkeypatch):
    """Here in a file that Detectron2 registered, which nobody has mended."""
    expected, _ = evaluated(FastCOCOEvaluator, dataset)
    file = Path(MetadataCatalog.get(dataset[0]).json_file)
    truth = json.loads(file.read_text())
    ODD_FIELDS[name](truth)
    file.write_text(json.dumps(truth))
    watch = Watch(monkeypatch)
    np.testing.assert_equal(evaluated(FastCOCOEvaluator, dataset)[0], expected)
    assert watch.count == 0  # nor does it get slow
    monkeypatch.setattr(module, "_hotcoco", lambda: None)
    np.testing.assert_equal(evaluated(FastCOCOEvaluator, dataset)[0], expected)


def test_pycocotools_takes_over_where_hotcoco_refuses(dataset, monkeypatch, caplog):
    expected, _ = evaluated(FastCOCOEvaluator, dataset)

    class Refusing:
        class COCO:
            @staticmethod
            def from_arrays(*args, **kwargs):
                raise ValueError("images[0]: field 'license'")

    monkeypatch.setattr(module, "_hotcoco", lambda: Refusing)
    np.testing.assert_equal(evaluated(FastCOCOEvaluator, dataset)[0], expected)
    assert "hotcoco refuses the data (images[0]: field 'license')" in caplog.text


def test_what_cannot_be_evaluated_is_a_sentence(dataset):
    file = Path(MetadataCatalog.get(dataset[0]).json_file)
    truth = json.loads(file.read_text())
    for row in truth["annotations"]:
        del row["area"]
    file.write_text(json.dumps(truth))
    with pytest.raises(FcosError, match=r"coco_evaluation_test cannot be evaluated \(KeyError: 'area'\): register"):
        evaluated(FastCOCOEvaluator, dataset)
    truth["annotations"][0]["bbox"][0] = 10**400
    file.write_text(json.dumps(truth))
    with pytest.raises(FcosError, match=r"coco_evaluation_test cannot be evaluated \(OverflowError: "):
        evaluated(FastCOCOEvaluator, dataset)
    for text, words in (("[]", "a JSON list instead"), ("7", "a JSON int instead"), ("{", "is not valid JSON")):
        file.write_text(text)
        with pytest.raises(FcosError, match=words):
            evaluated(FastCOCOEvaluator, dataset)
    file.write_text(json.dumps(truth))
    MetadataCatalog.get(dataset[0]).thing_dataset_id_to_contiguous_id.popitem()
    with pytest.raises(FcosError, match=r"found class 3, but the data set coco_evaluation_test has 3 classes"):
        evaluated(FastCOCOEvaluator, dataset)


def test_masks_are_pycocotools_work(dataset, monkeypatch):
    watch = Watch(monkeypatch)
    masks = dataset[0], [(i, {"instances": with_masks(o["instances"])}) for i, o in dataset[1]]
    file = Path(MetadataCatalog.get(dataset[0]).json_file)
    truth = json.loads(file.read_text())
    for item in truth["annotations"]:
        x, y, w, h = item["bbox"]
        item["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        item["iscrowd"] = 0
    file.write_text(json.dumps(truth))
    expected, _ = evaluated(COCOEvaluator, masks, use_fast_impl=False)
    watch.count = 0
    results, _ = evaluated(FastCOCOEvaluator, masks)
    np.testing.assert_equal(results, expected)
    assert results.keys() == {"bbox", "segm"} and watch.count == (1 if module._hotcoco() else 2)


def with_masks(instances):
    grid_y, grid_x = torch.meshgrid(torch.arange(480), torch.arange(640), indexing="ij")
    x1, y1, x2, y2 = instances.pred_boxes.tensor.view(-1, 4, 1, 1).unbind(1)
    instances.pred_masks = (grid_x >= x1) & (grid_x < x2) & (grid_y >= y1) & (grid_y < y2)
    return instances


def test_nothing_found_and_an_error_on_the_way(dataset, monkeypatch):
    name, outputs = dataset
    nothing = name, [(inputs, {"instances": output["instances"][:0]}) for inputs, output in outputs]
    assert np.isnan(evaluated(FastCOCOEvaluator, nothing)[0]["bbox"]["AP"])
    theirs = coco_evaluation._evaluate_predictions_on_coco
    monkeypatch.setattr(module, "evaluate_boxes", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluated(FastCOCOEvaluator, dataset)
    assert coco_evaluation._evaluate_predictions_on_coco is theirs
