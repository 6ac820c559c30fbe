"""How to train is a row of a table, chosen by what training starts from and by the size of the data."""

from __future__ import annotations

import math

import pytest
from detectron2.structures import BoxMode

from fcos_d2 import zoo
from fcos_d2.train.presets import DEFAULT_MODELS, LADDERS, PRESETS, SIZES, choose_preset, choose_size


@pytest.mark.parametrize("start", PRESETS)
def test_more_images_never_mean_fewer_iterations(start):
    lengths = []
    for images in (1, 10, 59, 60, 61, 200, 999, 1000, 1001, 5000, 9999, 10_000, 10_001, 100_000):
        _, preset = choose_preset(start, images)
        lengths.append(max(math.ceil(preset.epochs * images / preset.batch_size), preset.least_iterations))
    assert lengths == sorted(lengths)


def test_each_size_has_a_row_for_each_start():
    assert all(list(rows) == list(SIZES) for rows in PRESETS.values())
    assert [choose_preset("detector", images)[0] for images in (1, 60, 61, 1000, 1001, 10_000, 10_001)] == [
        "few", "few", "small", "small", "medium", "medium", "large",
    ]  # fmt: skip


def test_weights_ask_for_less_than_scratch():
    for size in SIZES:
        scratch, backbone, detector = (PRESETS[start][size] for start in ("scratch", "backbone", "detector"))
        assert scratch.epochs >= backbone.epochs > detector.epochs
        assert scratch.lr >= backbone.lr > detector.careful_lr
        assert scratch.freeze is None  # what is random learns


def test_models_exist_and_ladders_fall():
    for names in (*DEFAULT_MODELS.values(), *LADDERS.values()):
        costs = [zoo.costs()[zoo.find(name).full_name]["parameters"] for name in names]
        assert costs == sorted(costs, reverse=True)


def record(*sides: float, crowd: int = 0) -> dict:
    boxes = [
        {"bbox": [0.0, 0.0, side, side], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": crowd, "category_id": 0}
        for side in sides
    ]
    return {"width": 640, "height": 480, "annotations": boxes}


def test_image_size_follows_the_objects():
    sizes = (256, 320, 416, 512)
    assert choose_size([record(*[40.0] * 20)], sizes) == 256  # 21 pixels there
    assert choose_size([record(*[26.0] * 20)], sizes) == 320
    assert choose_size([record(*[5.0] * 20)], sizes) == 512  # none is enough
    assert choose_size([record(*[100.0] * 19, 2.0)], sizes) == 256  # one in twenty may be tiny
    assert choose_size([record(*[5.0] * 20, crowd=1)], sizes) == 256
    assert choose_size([{"annotations": []}, {"width": 0, "height": 0, "annotations": []}], sizes) == 256
