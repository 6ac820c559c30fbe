"""Views of an image: sizes, pixels, and boxes brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from scenes import random_boxes

from fcos_d2.errors import FcosError
from fcos_d2.modeling import Selector
from fcos_d2.predict.views import ORIGINAL, Look, brought_back, looks_at, original_pixels, pixels_of
from fcos_d2.zoo.tta import PRESETS, TTA, View


def inputs_of(size: tuple[int, int], original: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {
        "image": torch.zeros(3, *size, dtype=torch.uint8), "height": original[0], "width": original[1], **more
    }  # fmt: skip


def found_of(size: tuple[int, int], boxes: torch.Tensor) -> Instances:
    count = len(boxes)
    return Instances(
        size, pred_boxes=Boxes(boxes), scores=torch.rand(count), pred_classes=torch.arange(count),
        locations=(boxes[:, :2] + boxes[:, 2:]) / 2,
    )  # fmt: skip


@pytest.mark.parametrize("original", [(480, 640), (640, 427), (333, 1000), (100, 5000)])
def test_sizes_are_those_of_detectron2s_augmentation(original: tuple[int, int]) -> None:
    plain = T.ResizeShortestEdge.get_output_shape(*original, 800, 1333)
    looks = looks_at(PRESETS["original"].tta, 0, inputs_of(plain, original))
    for look in looks:
        size, limit = (800, 1333) if look.view.size is None else (look.view.size, 2000)
        transform = T.ResizeShortestEdge([size, size], limit).get_transform(np.zeros((*original, 3), np.uint8))
        assert look.size == (transform.new_h, transform.new_w)


def test_scales_are_of_the_size_that_the_config_gives() -> None:
    looks = looks_at(TTA(scales=(0.5, 1.5, 10.0), max_size=900), 3, inputs_of((301, 500), (75, 125)))
    assert [look.size for look in looks] == [(301, 500), (151, 250), (452, 750), (542, 900)]
    assert {look.row for look in looks} == {3}


def test_no_network_input_twice_where_one_is_suppressed() -> None:
    """Long images reach the largest side in several sizes."""
    long = inputs_of((133, 1333), (100, 1000))
    both = [
        len(looks_at(TTA(sizes=(900, 1000, 1100), max_size=2000, flip=True, merge=m), 0, long)) for m in ("nms", "vote")
    ]
    assert both == [4, 8]


def test_nothing_is_left_of_a_line() -> None:
    with pytest.raises(FcosError, match=r"An image of 9000x1 pixels cannot be looked at in 400"):
        looks_at(TTA(sizes=(400,), max_size=600), 0, inputs_of((1, 1333), (1, 9000)))


def test_pixels_are_those_of_the_original(tmp_path: Path) -> None:
    """Not the network input resized once more, as long as it is known; in the order of channels of the model."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    small = torch.from_numpy(picture[::2, ::2].transpose(2, 0, 1).copy())
    inputs = {"image": small, "height": 40, "width": 60}
    of_file = {**inputs, "file_name": str(tmp_path / "x.png")}
    assert np.array_equal(original_pixels(of_file, "RGB"), picture)
    assert np.array_equal(original_pixels(of_file, "BGR"), picture[:, :, ::-1])
    assert original_pixels({**of_file, ORIGINAL: picture}, "BGR") is picture
    assert np.array_equal(original_pixels(inputs, "BGR"), picture[::2, ::2])
    look = Look(0, View(size=80), (80, 120))
    wanted = np.asarray(Image.fromarray(picture).resize((120, 80), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels_of(look, of_file, picture).numpy(), wanted.transpose(2, 0, 1))
    assert pixels_of(look, {**inputs, "image": small.float()}, picture).dtype == torch.float32
    assert pixels_of(Look(0, View(), (20, 30)), of_file, picture) is small


@pytest.mark.parametrize("corner", [0.0, 1.0])
@pytest.mark.parametrize("size", [(128, 160), (64, 80), (192, 240)])
def test_boxes_of_a_mirror_image_are_those_of_the_image(size: tuple[int, int], corner: float) -> None:
    """`corner` is in pixels of the original image; a box that ends early there ends early in its mirror image, too."""
    frame, view = (128, 160), View(flip=True)
    true = random_boxes(20, frame)
    ends = true - torch.tensor([0, 0, corner, corner])
    scale, pixel = size[1] / frame[1], corner * size[1] / frame[1]
    mirrored = torch.stack((size[1] - true[:, 2] * scale, true[:, 1] * scale, size[1] - true[:, 0] * scale,
                            true[:, 3] * scale), dim=1) - torch.tensor([0, 0, pixel, pixel])  # fmt: skip
    back, xy = brought_back(found_of(size, mirrored), Look(0, view, size), frame, pixel, Selector())
    assert torch.allclose(back.boxes, ends, atol=1e-3)
    theirs = (size[1] - 1 - mirrored[:, [2, 0]]) / scale  # where the original FCOS mirrors: right for `corner` 1 alone,
    shifted = (theirs - ends[:, [0, 2]]).abs()  # and for images that keep their size
    assert torch.allclose(shifted, torch.full_like(shifted, abs(pixel - 1) / scale), atol=1e-3)
    centers = (true[:, :2] + true[:, 2:] + torch.tensor([corner, -corner])) / 2
    assert torch.allclose(xy, centers, atol=1e-3)


def test_a_view_in_its_own_frame_stays_to_the_bit() -> None:
    boxes = random_boxes(30) * 1.37
    found = found_of((128, 128), boxes.clone())
    back, xy = brought_back(found, Look(0, View(), (128, 128)), (128, 128), 1.0, Selector())
    assert torch.equal(back.boxes, boxes) and torch.equal(back.scores, found.scores)
    assert torch.equal(xy, found.locations)


def test_areas_are_of_the_pixels_of_the_view() -> None:
    """Strictly between the squares of the two sides; with one pixel more where overlaps are measured so."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 9, 9], [0, 0, 40, 9], [5, 5, 5, 5]])
    look = Look(0, View(size=100, sides=(10, 20)), (100, 100))

    def kept(selector: Selector, size: tuple[int, int] = (100, 100)) -> list[int]:
        found = found_of(size, boxes * size[0] / 100)
        return brought_back(found, look, (50, 50), 0.0, selector)[0].classes.tolist()

    assert kept(Selector()) == [3]
    assert kept(Selector(nms_convention="plus_one")) == [0]  # 121; those of 441, 100, 410 and 1 are not
    assert kept(Selector(), (50, 50)) == [3]  # a detector that reports in pixels of the original image
