"""Pictures of a confusion matrix, and sheets of crops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.visualize import Crop, Drawable, draw_confusion, draw_crops


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_color_follows_the_share_of_the_row(tmp_path):
    """A perfect detector is a dark diagonal; one that misses everything is a dark last column."""
    perfect = pixels(draw_confusion(np.diag([5, 7, 0]), ["cat", "dog"], tmp_path / "a.png"))
    blind = pixels(draw_confusion(np.array([[0, 0, 5], [0, 0, 7], [0, 0, 0]]), ["cat", "dog"], tmp_path / "b.png"))
    assert perfect.shape == blind.shape
    left, right = (np.where((p[..., 2] - p[..., 0]) > 70, 1, 0).sum(0).nonzero()[0].mean() for p in (perfect, blind))
    assert right > left + 50


@pytest.mark.parametrize("classes", [1, 3, 24, 25, 300])
def test_any_number_of_classes_is_a_picture_that_can_be_read(tmp_path, classes):
    rng = np.random.default_rng(0)
    matrix = rng.poisson(0.2, (classes + 1,) * 2) + np.diag(rng.integers(0, 20_000, classes + 1))
    names = [f"class of a long name {i}" if i % 2 else "$\\猫_$" for i in range(classes)]
    with Image.open(draw_confusion(matrix, names, tmp_path / "a.png", "a title", "IoU ≥ 0.5")) as image:
        assert min(image.size) > 300 and max(image.size) < 2600


def test_of_many_classes_the_largest_are_shown_and_nothing_is_left_out():
    from fcos_d2.visualize.confusion import _legible

    matrix = np.diag(np.arange(41)) + np.ones((41, 41), int)
    small, labels = _legible(matrix, [f"c{i}" for i in range(40)])
    assert labels == [*(f"c{i}" for i in range(17, 40)), "17 others", "background"]
    assert small.shape == (25, 25) and small.sum() == matrix.sum() and small[0, 0] == 18


def test_empty_matrix(tmp_path):
    assert draw_confusion(np.zeros((3, 3), int), ["a", "b"], tmp_path / "a.png").is_file()


@pytest.mark.parametrize("size", [(40, 60), (900, 30), (300, 300), (1, 1)])
def test_a_crop_shows_its_box(tmp_path, size):
    image = np.full((*size, 3), 255, np.uint8)
    box = np.array([size[1] * 0.25, size[0] * 0.25, size[1] * 0.75, size[0] * 0.75])
    crop = Crop(image, box, Drawable([box], [1]), ["a name", "猫" * 60])
    page = pixels(draw_crops([("some", [crop] * 7), ("others", [])], ["x", "y"], tmp_path / "a.jpg", "title"))
    colored = (page.max(2) - page.min(2)) > 80
    assert colored[80:320, 28:260].sum() > 60 and not colored[:, -25:].any()
