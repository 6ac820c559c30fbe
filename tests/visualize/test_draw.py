"""Pictures of boxes and of training."""

from __future__ import annotations

import json

import matplotlib.pyplot
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.errors import FcosError
from fcos_d2.visualize.draw import Drawable, class_color, draw_boxes, draw_comparison, draw_curves

NAMES = ["cat", "dog", "a class with a name that is far too long for a chip"]


def ground(height=120, width=160):
    return np.full((height, width, 3), 128, np.uint8)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


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


def test_colors_are_fixed_and_differ():
    colors = [class_color(index) for index in range(100)]
    assert len(set(colors)) == 100
    assert all(0 <= value <= 255 for color in colors for value in color)
    first = np.array(colors[:12])
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 999 * np.eye(12)
    assert distances.min() > 60


def test_wrong_arguments():
    with pytest.raises(FcosError, match="must be uint8"):
        draw_boxes(ground().astype(np.float32), [], [])
    with pytest.raises(FcosError, match="2 boxes to draw but 1 classes"):
        draw_boxes(ground(), np.zeros((2, 4)), [1])
    with pytest.raises(FcosError, match="no image"):
        draw_comparison([], NAMES, "x.png")


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


def metrics(last=10):
    for step in range(last):
        yield {"iteration": step, "total_loss": 3 / (step + 1), "loss_fcos_cls": 1 / (step + 1), "lr": 0.01}
        if step % 3 == 2:
            yield {"iteration": step, "bbox/AP": 4.0 * step, "bbox/AP50": 8.0 * step, "bbox/AP75": float("nan")}


def colored(path):
    """Number of pixels that belong to a curve: their color is not grey."""
    picture = pixels(path)
    return int((picture.max(2) - picture.min(2) > 80).sum())


def test_curves_of_rows_and_of_a_file_are_the_same(tmp_path):
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, metrics())) + '\n{"iteration": 10, "total_l')
    from_rows = draw_curves(metrics(), tmp_path / "a.png").read_bytes()
    assert draw_curves(tmp_path / "metrics.json", tmp_path / "b.png").read_bytes() == from_rows
    assert colored(tmp_path / "a.png") > 1000


@pytest.mark.parametrize("text", ["", '{"iteration": 0}\n', '{"total_loss": 1.0}\n', '[1]\n"x"\n{"iter'])
def test_curves_without_anything_to_draw(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    assert colored(draw_curves(tmp_path / "metrics.json", tmp_path / "a.png")) == 0


def test_curves_of_one_line_and_of_missing_keys(tmp_path):
    one = draw_curves([{"iteration": 0, "total_loss": 0.0, "loss_fcos_cls": 1.0, "lr": 0.0}], tmp_path / "a.png")
    assert colored(one) > 10
    only_ap = draw_curves([{"iteration": 99, "bbox/AP": 30.0}], tmp_path / "b.png")
    assert colored(only_ap) > 10
    with pytest.raises(FcosError, match=r"gone\.json cannot be read"):
        draw_curves(tmp_path / "gone.json", tmp_path / "c.png")


def test_a_resumed_training_overrules_what_it_repeats(tmp_path):
    wrong = [{"iteration": step, "total_loss": 99.0, "loss_fcos_cls": 99.0, "lr": 5.0} for step in (4, 5, 6, 7, 8, 30)]
    plain = list(metrics())
    resumed = [row for row in plain if row["iteration"] < 4] + wrong + [row for row in plain if row["iteration"] >= 4]
    expected = draw_curves(plain, tmp_path / "a.png").read_bytes()
    assert draw_curves(resumed, tmp_path / "b.png").read_bytes() == expected


def test_leaves_pyplot_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    before = matplotlib.pyplot.get_fignums(), matplotlib.get_backend(), matplotlib.rcParams["font.family"]
    draw_curves(metrics(), tmp_path / "a.png")
    assert (matplotlib.pyplot.get_fignums(), matplotlib.get_backend(), matplotlib.rcParams["font.family"]) == before
