"""Which boxes are too small: as the detector's own assigner has it, box by box."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T

from fcos_d2.data.audit.reach import Rule, input_sizes, taken
from fcos_d2.modeling.assigner import PointAssigner
from fcos_d2.modeling.locations import LocationGrid

RULES = (
    Rule(), Rule(center_radius=0.0, area="plus_one"), Rule(range_ends="open", center_radius=1.0),
    Rule(strides=(8, 16, 32), size_ranges=((-1.0, 64.0), (64.0, 128.0), (128.0, math.inf))),
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"radius {rule.center_radius:g}, {rule.range_ends}")
@pytest.mark.parametrize("whole", [False, True], ids=["any numbers", "whole numbers"])
def test_the_same_boxes_as_the_assigner(rule: Rule, whole: bool) -> None:
    rng = np.random.default_rng(len(rule.strides) + whole)
    width, height, images, count = 352, 320, 3, 400
    low = rng.uniform(0, 1, (count, 2)) * (width, height)
    side = np.exp(rng.uniform(np.log(0.5), np.log(300), (count, 2)))
    corners = np.concatenate((low, np.minimum(low + side, (width, height))), 1)
    boxes = (corners.round() if whole else corners).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    image = np.sort(rng.integers(images, size=len(boxes)))
    sizes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in rule.strides]
    locations = LocationGrid()(sizes, rule.strides, (height, width), torch.device("cpu"))
    assigner = PointAssigner(rule.size_ranges, rule.range_ends, rule.center_radius, rule.area)
    tensor = torch.from_numpy(boxes)
    beside = assigner(locations, tensor, torch.from_numpy(image), images).unique()
    alone = [
        int(assigner(locations, tensor[i : i + 1], torch.zeros(1, dtype=torch.int64), 1).max()) == 0
        for i in range(len(boxes))
    ]
    found_alone, found_beside = taken(boxes, image, rule)
    assert found_alone.tolist() == alone
    assert np.flatnonzero(found_beside).tolist() == [row for row in beside.tolist() if row >= 0]
    assert 0 < found_beside.sum() <= found_alone.sum() < len(boxes)


def test_input_sizes_are_those_of_detectron2() -> None:
    sizes = np.random.default_rng(0).integers(20, 3000, (200, 2)).astype(float)
    for size, longest in ((320, 533), (800, 1333)):
        expected = [T.ResizeShortestEdge.get_output_shape(int(h), int(w), size, longest)[::-1] for w, h in sizes]
        assert input_sizes(sizes, Rule(size, longest)).tolist() == [list(map(float, one)) for one in expected]
    assert input_sizes(np.array([[640.0, 480.0]]), Rule(320)).tolist() == [[427.0, 320.0]]


def test_no_boxes() -> None:
    alone, beside = taken(np.zeros((0, 4)), np.zeros(0, int), Rule())
    assert len(alone) == len(beside) == 0
