"""Boxes on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.errors import FcosError
from fcos_d2.visualize import class_color, draw_boxes

NAMES = ["cat", "dog", "a class with a name that is far too long for a chip"]


def ground(height=120, width=160):
    return np.full((height, width, 3), 128, np.uint8)


def test_draws_the_outline_in_the_class_color_on_a_copy():
    image = ground()
    drawn = draw_boxes(image, [[40, 30, 120, 90]], [1], names=NAMES, labels=False)
    assert (image == 128).all()
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    for y, x in ((60, 40), (60, 119), (30, 80), (89, 80)):  # a pixel of each side
        assert np.abs(drawn[y, x].astype(int) - class_color(1)).max() < 40
    assert (drawn[45:75, 55:105] == 128).all()  # inside
    assert (drawn[:25] == 128).all() and (drawn[95:] == 128).all()  # outside


@pytest.mark.parametrize("size", [(1, 1), (33, 31), (20, 400), (1200, 900)])
@pytest.mark.parametrize(
    "box", [(0, 0, 5, 5), (-50, -50, 5000, 5000), (3, 3, 3, 3), (3, 3, 3.1, 3.1), (9e9, 9e9, 9.1e9, 9.1e9)]
)
def test_any_image_and_box_size(size, box):
    image = np.zeros((*size, 3), np.uint8)
    assert draw_boxes(image, [box], [2], [0.5], NAMES).shape == image.shape


@pytest.mark.parametrize("corner", [(0, 0), (150, 0), (0, 110), (150, 110)])
def test_chips_stay_inside_the_image(corner):
    """The chip adds the same colored area wherever the box lies: nothing of it is cut off."""
    x, y = corner
    middle = draw_boxes(ground(), [[70, 55, 80, 65]], [0], names=NAMES).astype(int)
    drawn = draw_boxes(ground(), [[x, y, x + 10, y + 10]], [0], names=NAMES).astype(int)
    areas = [np.count_nonzero((np.abs(picture - class_color(0)) < 60).all(2)) for picture in (middle, drawn)]
    assert areas[1] > 0.7 * areas[0]


def test_text_grows_with_the_image():
    heights = []
    for scale in (4, 8):
        drawn = draw_boxes(ground(120 * scale, 160 * scale), np.array([[40, 60, 120, 90]]) * scale, [0], names=NAMES)
        plain = draw_boxes(
            ground(120 * scale, 160 * scale), np.array([[40, 60, 120, 90]]) * scale, [0], names=NAMES, labels=False
        )
        heights.append(np.count_nonzero((drawn != plain).any((1, 2))))
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.1)


def test_no_boxes_and_boxes_that_are_not_finite():
    assert (draw_boxes(ground(), np.zeros((0, 4)), [], [], NAMES) == 128).all()
    nan = float("nan")
    assert (draw_boxes(ground(), [[nan, 0, 9, 9]], [0], [0.9], NAMES) == 128).all()


def test_tensors_and_classes_without_a_name():
    boxes, classes, scores = torch.tensor([[10.0, 40, 60, 90]]), torch.tensor([7]), torch.tensor([0.9])
    drawn = draw_boxes(ground(), boxes.requires_grad_(), classes, scores, NAMES)
    assert (drawn == draw_boxes(ground(), [[10, 40, 60, 90]], [7], [0.9], None)).all()


def test_wrong_arguments():
    with pytest.raises(FcosError, match="must be uint8"):
        draw_boxes(ground().astype(np.float32), [], [])
    with pytest.raises(FcosError, match="2 boxes to draw but 1 classes"):
        draw_boxes(ground(), np.zeros((2, 4)), [1])


def test_boxes_of_a_few_pixels_anywhere():
    image, rng = np.zeros((64, 96, 3), np.uint8), np.random.default_rng(0)
    for _ in range(60):
        corner, size = rng.uniform(-2, 98, 2), rng.uniform(0, 3, 2)
        assert draw_boxes(image, [[*corner, *(corner + size)]], [0], [0.5], ["a"]).shape == image.shape


@pytest.mark.parametrize("labels", [False, True])
def test_a_large_image_is_drawn_on_without_a_larger_one(labels, monkeypatch):
    """All the same but for smoothing."""
    boxes, scores = [[40, 30, 120, 90], [5, 5, 5.2, 60]], [0.5, 0.9]
    smooth = draw_boxes(ground(), boxes, [1, 0], scores, NAMES, labels)
    monkeypatch.setattr("fcos_d2.visualize.boxes._SMOOTHED", 100)
    image = ground()
    plain = draw_boxes(image, boxes, [1, 0], scores, NAMES, labels)
    assert (image == 128).all() and plain.flags.writeable
    assert (np.abs(plain.astype(int) - smooth) > 60).any(2).mean() < 0.05
    assert (np.abs(plain[60, 40].astype(int) - class_color(1)) < 40).all()
