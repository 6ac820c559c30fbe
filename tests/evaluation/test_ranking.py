"""Other rankings of the same predictions, and the pass over a data set that collects them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from scenes import distinct, ground_truth, scene_of

from fcos_d2.data import DatasetNames
from fcos_d2.evaluation.breakdown import Objects
from fcos_d2.evaluation.evaluate import build_test_loader
from fcos_d2.evaluation.observation import observe
from fcos_d2.evaluation.ranking import RANKINGS, at_locations, reranked, target_quality
from fcos_d2.modeling.ltrb import IOU_RULES, ltrb_iou
from fcos_d2.structures import Detections

BY_NAME = {one.name: one for one in RANKINGS}


def rank(name: str, recipe: str) -> tuple[Detections, Detections, torch.Tensor]:
    """The detector's own detections, those of a ranking, and the locations."""
    scene = scene_of(recipe, counts=(3, 0))
    sizes = [scene.image_size] * 2
    with torch.no_grad():
        again = reranked(BY_NAME[name], scene.dense, scene.predictions, scene.ground_truth)
        own, other = (scene.dense.detect(maps, sizes) for maps in (scene.predictions, again))
        logits = at_locations(scene.predictions.logits, scene.predictions.locations)
        other.scores_of_class = logits[other.image, other.location, other.classes].sigmoid()
    return own, other, scene.predictions.locations.xy


@pytest.mark.parametrize("recipe", distinct("grid", "coder", "selector"))
def test_without_quality_the_class_score_ranks(recipe: str) -> None:
    _, found, _ = rank("none", recipe)
    scores = found.scores_of_class
    expected = scores.sqrt() if scene_of(recipe).dense.selector.score_form == "sqrt" else scores
    assert len(found) > 20 and torch.allclose(found.scores, expected, atol=1e-6)


@pytest.mark.parametrize("recipe", ["original", "improved", "adelaidet_iou"])
def test_the_centerness_of_the_box_ranks(recipe: str) -> None:
    """Equation 3, on each box and the location that it was predicted at, one after the other."""
    own, found, xy = rank("from the regression", recipe)
    selector = scene_of(recipe).dense.selector
    checked = 0
    for row in range(len(found)):
        (x, y), (x0, y0, x1, y1) = xy[found.location[row]].tolist(), found.boxes[row].tolist()
        left, top, right, bottom = x - x0, y - y0, x1 - x, y1 - y
        if selector.clip == "before" or min(left, top, right, bottom) < 1:
            continue  # the box was clipped, or has lost its digits
        center = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
        product = float(found.scores_of_class[row]) * center
        expected = math.sqrt(product) if selector.score_form == "sqrt" else product
        assert float(found.scores[row]) == pytest.approx(expected, rel=2e-3)
        checked += 1
    assert checked > 10 or selector.clip == "before"
    assert not torch.equal(own.scores[:10], found.scores[:10])


@pytest.mark.parametrize("recipe", distinct("grid", "coder"))
def test_the_oracle_knows_the_target(recipe: str) -> None:
    scene = scene_of(recipe, counts=(4, 0))
    with torch.no_grad():
        image, location, target = target_quality(scene.dense, scene.predictions, scene.ground_truth)
        again = reranked(BY_NAME["oracle"], scene.dense, scene.predictions, scene.ground_truth)
        before, after = (at_locations(maps.quality, maps.locations)[..., 0] for maps in (scene.predictions, again))
    assert len(target) > 0 and (image == 0).all()
    assert torch.allclose(after[image, location].sigmoid(), target, atol=1e-5)
    changed = torch.zeros_like(before, dtype=torch.bool)
    changed[image, location] = True
    assert torch.equal(before[~changed], after[~changed])
    xy, box = scene.predictions.locations.xy[location], scene.boxes[0]
    index = scene.dense.assigner(scene.predictions.locations, box, torch.zeros(4, dtype=torch.int64), 1)[0, location]
    near, far = xy - box[index, :2], box[index, 2:] - xy
    expected = (torch.minimum(near, far) / torch.maximum(near, far)).prod(dim=1).sqrt()
    assert torch.allclose(target, expected, atol=1e-5)


def test_the_target_of_an_iou_branch_is_the_overlap() -> None:
    scene = scene_of("adelaidet_iou", counts=(3,))
    with torch.no_grad():
        image, location, target = target_quality(scene.dense, scene.predictions, scene.ground_truth)
        targets = scene.dense.targets(scene.predictions.locations, scene.ground_truth)
        raw = scene.predictions.gather(scene.predictions.raw_ltrb, image, location)
    expected = ltrb_iou(scene.dense.coder.activate(raw), targets.ltrb, IOU_RULES["eps"])[0]
    assert scene.dense.loss.quality == "iou" and torch.allclose(target, expected)


def test_no_object_leaves_the_oracle_as_it_was() -> None:
    scene = scene_of("improved", counts=(0,))
    empty = ground_truth([torch.zeros(0, 4)])
    with torch.no_grad():
        again = reranked(BY_NAME["oracle"], scene.dense, scene.predictions, empty)
    assert all(torch.equal(a, b) for a, b in zip(again.quality, scene.predictions.quality))


@pytest.mark.parametrize("recipe", ["improved", "original"])
def test_one_pass_collects_all(small: Callable, data: DatasetNames, recipe: str) -> None:
    """What is collected is what the model gives, and the model is as before."""
    overrides = () if recipe == "improved" else ("model.inclusive_far_corner=true",)
    cfg = small("out", "model.dense.selector.score_threshold=0.0", *overrides)
    torch.manual_seed(0)
    model = instantiate(cfg.model).eval()
    selector = model.dense.selector
    objects = Objects.of(data.val or "")
    seen: list[int] = []
    found = observe(model, build_test_loader(cfg, data.val), objects, RANKINGS, [1], seen.append)
    assert model.dense.selector is selector and seen == [1, 2, 3, 4]
    inputs = [one for batch in build_test_loader(cfg, data.val) for one in batch]
    with torch.no_grad():
        expected = [model([one])[0]["instances"] for one in inputs]
    assert len(found.found.scores) == sum(map(len, expected)) > 100
    places = {record["image_id"]: i for i, record in enumerate(objects.records)}
    for one, instances in zip(inputs, expected):
        rows = found.found.image == places[one["image_id"]]
        corners = instances.pred_boxes.tensor.numpy()
        assert found.found.boxes[rows][:, :2] == pytest.approx(corners[:, :2])
        assert found.found.scores[rows] == pytest.approx(instances.scores.numpy(), abs=0)
    product = found.class_scores * found.quality
    form = product**0.5 if selector.score_form == "sqrt" else product
    assert found.found.scores == pytest.approx(form, abs=1e-6)
    assert set(found.by_ranking) == {one.name for one in RANKINGS} and found.kind == "centerness"

    biased = copy.deepcopy(model)  # a branch that says 1 everywhere is none
    torch.nn.init.zeros_(biased.dense.head.quality.weight)
    torch.nn.init.constant_(biased.dense.head.quality.bias, 40.0)
    with torch.no_grad():
        plain: list[Instances] = [biased([one])[0]["instances"] for one in inputs]
    none = found.by_ranking["none"]
    assert none.scores == pytest.approx(torch.cat([x.scores for x in plain]).double().numpy(), abs=1e-6)

    (maps,) = found.maps.values()
    assert set(found.maps) == {1} and maps.quality.shape == maps.class_score.shape == maps.target.shape
    assert maps.quality.min() >= 0 and maps.quality.max() <= 1 and 0 < maps.target.max() <= 1
    height, width = objects.records[1]["height"], objects.records[1]["width"]
    assert maps.size == (height, width)
    assert abs(maps.quality.shape[1] / maps.quality.shape[0] - width / height) < 0.05


def test_another_model_is_run_as_it_is(data: DatasetNames, small: Callable) -> None:
    class Other(torch.nn.Module):
        def forward(self, inputs):
            (one,) = inputs
            instances = Instances((one["height"], one["width"]))
            from detectron2.structures import Boxes

            instances.pred_boxes = Boxes(torch.tensor([[1.0, 2, 11, 22]]))
            instances.scores, instances.pred_classes = torch.tensor([0.5]), torch.tensor([1])
            return [{"instances": instances}]

    objects = Objects.of(data.val or "")
    found = observe(Other(), build_test_loader(small(), data.val), objects, RANKINGS, [0])
    assert found.found.boxes.tolist() == [[1, 2, 10, 20]] * 4 and found.found.image.tolist() == [0, 1, 2, 3]
    assert (found.by_ranking, found.class_scores, found.maps, found.kind) == ({}, None, {}, "")
