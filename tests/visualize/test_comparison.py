"""Ground truth beside detections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.errors import FcosError
from fcos_d2.visualize import Drawable, class_color, draw_comparison

NAMES = ["cat", "dog", "a class with a name that is far too long for a chip"]


def ground(height=120, width=160):
    return np.full((height, width, 3), 128, np.uint8)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def rows():
    truth = Instances((120, 160))
    truth.gt_boxes, truth.gt_classes = Boxes(torch.tensor([[20.0, 20, 80, 100]])), torch.tensor([0])
    found = Instances((120, 160))
    found.pred_boxes = Boxes(torch.tensor([[22.0, 22, 80, 98], [90, 20, 140, 100]]))
    found.pred_classes, found.scores = torch.tensor([0, 1]), torch.tensor([0.9, 0.1])
    return [
        (ground(), truth, found),
        (ground(300, 100), Drawable([[5, 5, 50, 50]], [1]), ([[5, 5, 50, 50]], [1], [0.8])),
        (ground(64, 64), (np.zeros((0, 4)), []), (np.zeros((0, 4)), [], [])),
    ]


def test_comparison(tmp_path):
    path = draw_comparison(rows(), NAMES, tmp_path / "new" / "c.png", tile=200)
    picture = pixels(path)
    assert picture.shape[1] > 4 * 200
    half = picture[:, : picture.shape[1] // 2]
    assert [path.name for path in path.parent.iterdir()] == ["c.png"]
    # The first pair shows class 0 on both sides, and not class 1, whose score is too low.
    for label, present in ((0, True), (1, False)):
        seen = (np.abs(half[100:260] - class_color(label)) < 12).all(2)
        left, right = seen[:, 28:228].sum(), seen[:, 234:434].sum()
        assert (left > 50 and right > 50) if present else (left == right == 0)
    lower = draw_comparison(rows()[:1], NAMES, tmp_path / "one.png", min_score=0.0, tile=200)
    assert (np.abs(pixels(lower) - class_color(1)) < 12).all(2).sum() > 50


def test_nothing_to_compare():
    with pytest.raises(FcosError, match="no image"):
        draw_comparison([], NAMES, "x.png")
