"""What comes from a data loader is checked, and the message names the image."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from scenes import CPU, instances

from fcos_d2.modeling.inputs import check_images, ground_truth, image_name


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ({"file_name": "a/b.jpg", "image_id": 7}, "image a/b.jpg"),
        ({"image_id": 7}, "image 7"),
        ({"image_id": 0}, "image 0"),
        ({"file_name": "", "image_id": "x"}, "image x"),
        ({}, "image 3 of the batch"),
    ],
)
def test_how_an_image_is_called(inputs: dict[str, Any], name: str) -> None:
    assert image_name(inputs, 3) == name


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_good_images(dtype: torch.dtype) -> None:
    """255 everywhere: a float16 sum of the pixels overflows, the image is good all the same."""
    check_images([{"image": torch.full((3, 40, 50), 255).to(dtype)}, {"image": torch.zeros(1, 1, 1, dtype=dtype)}])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_images_that_are_not_finite(value: float) -> None:
    image = torch.rand(3, 4, 4)
    bad = image.clone()
    bad[1, 2, 3] = value
    with pytest.raises(ValueError, match=r"^image b\.png holds values that are not finite \(NaN or infinity\)\.$"):
        check_images([{"image": image}, {"image": bad, "file_name": "b.png"}])


def test_infinities_that_cancel() -> None:
    bad = torch.zeros(3, 4, 4)
    bad[0, 0, 0], bad[0, 0, 1] = math.inf, -math.inf
    with pytest.raises(ValueError, match=r"^image 0 of the batch holds values that are not finite"):
        check_images([{"image": bad}])


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 5, 0), (0, 5, 5), (5, 5), (1, 3, 5, 5)])
def test_images_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    message = f"image 9 has the shape {shape}; (channels, height, width), none of them 0, is needed."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_images([{"image": torch.zeros(shape), "image_id": 9}])


def test_annotations_are_joined() -> None:
    batch = [
        {"instances": instances((9, 9), torch.tensor([[0.0, 1, 2, 3]]), torch.tensor([4]))},
        {"instances": instances((9, 9), torch.empty(0, 4))},
    ]
    truth = ground_truth(batch, 5, CPU)
    assert truth.boxes.tolist() == [[0, 1, 2, 3]]
    assert (truth.classes.tolist(), truth.image.tolist(), truth.num_images) == ([4], [0], 2)


def test_missing_annotations() -> None:
    batch = [{"instances": instances((9, 9), torch.empty(0, 4))}, {"file_name": "c.jpg"}]
    with pytest.raises(ValueError, match=r"^image c\.jpg has no 'instances': training needs annotations\.$"):
        ground_truth(batch, 5, CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_boxes_that_are_not_finite(value: float) -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [2, 2, value, 3]])
    message = f"image d.jpg has a box that is not finite: row 1, [2.0, 2.0, {value}, 3.0]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ground_truth([{"instances": instances((9, 9), boxes), "file_name": "d.jpg"}], 5, CPU)


@pytest.mark.parametrize("wrong", [-1, 5, 80])
def test_classes_that_the_model_does_not_know(wrong: int) -> None:
    """Others take the class K for background and train on it in silence."""
    batch = [{"instances": instances((9, 9), torch.rand(2, 4), torch.tensor([0, wrong])), "image_id": 12}]
    message = (
        f"image 12 has the class index {wrong}, but the model knows 5 classes (0..4): "
        "set num_classes to that of the data set."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ground_truth(batch, 5, CPU)
