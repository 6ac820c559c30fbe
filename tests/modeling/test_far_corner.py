"""Where boxes end: at x + w, or at x + w - 1 as in the original FCOS and what was made from its code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from scenes import CPU, detector, image_inputs, instances, points_of

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.data.mapper import FastMapper
from fcos_d2.modeling.inputs import ground_truth
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.zoo.recipes import RECIPES

# Families whose code came from maskrcnn-benchmark: their boxes end at x + w - 1.
INCLUSIVE = ("original", "improved", "fcos_plus", "fcos_hrnet", "fcos_vovnet", "nas_fcos", "fad")
SIZE = (60, 90)
# x, y, width, height: whole, in fractions, over each border, of one pixel, of less, over the whole image.
BOXES = [
    [10, 20, 30, 15], [3.5, 4.25, 30.1, 20.7], [-5.0, -3.0, 30.0, 20.0], [70.2, 50.9, 40.0, 30.0], [8.0, 8.0, 1.0, 9.0],
    [30.0, 30.0, 0.4, 5.0], [0.0, 0.0, 90.0, 60.0], [89.5, 3.0, 9.0, 9.0], [-3.0, 5.0, 3.5, 20.0],
]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_that_follow_the_original(name: str) -> None:
    assert RECIPES[name].detector.get("inclusive_far_corner", False) is name.startswith(INCLUSIVE)
    assert RECIPES[name].detector.get("keep_empty", False) is (name == "torchvision")


@pytest.mark.parametrize("variant", ["fcos/fcos_R_50_FPN_1x", "mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco"])
def test_both_config_files_say_it(variant: str) -> None:
    fcos_d2.add_fcos_config(cfg := get_cfg())
    cfg.merge_from_file(str(zoo.config_file(variant, yaml=True)))
    with unfilled():
        model = instantiate(zoo.get_config(variant).model)
    assert model.inclusive_far_corner is cfg.MODEL.FCOS.INCLUSIVE_FAR_CORNER is variant.startswith("fcos/")


# ------------------------------------------------------------------------------------------------------- on the way in
@pytest.mark.parametrize(
    ("resized", "box"),
    [
        ((60, 90), [10, 20, 39, 34]),
        ((120, 180), [20, 40, 78, 68]),
        ((30, 45), [5, 10, 19.5, 17]),
        ((60, 180), [20, 20, 78, 34]),
    ],
)
def test_on_paper(resized: tuple[int, int], box: list[float]) -> None:
    """The box 10, 20, 30, 15 of an image of 90x60 pixels loses a pixel of that image, whatever the scale."""
    down, across = resized[0] / 60, resized[1] / 90
    given = torch.tensor([[10.0, 20, 40, 35]]) * torch.tensor([across, down, across, down])
    inputs = {"image": torch.zeros(3, *resized), "instances": instances(resized, given), "height": 60, "width": 90}
    assert ground_truth([inputs], 1, CPU, True).boxes.tolist() == [box]
    assert torch.equal(ground_truth([inputs], 1, CPU).boxes, given)
    assert torch.equal(inputs["instances"].gt_boxes.tensor, given)  # whoever reads it next finds Detectron2's
    unknown = {key: value for key, value in inputs.items() if key not in ("height", "width")}
    assert torch.equal(ground_truth([unknown], 1, CPU, True).boxes, given - torch.tensor([0, 0, 1, 1]))


def test_every_image_of_a_batch_has_its_own_scale() -> None:
    box = torch.tensor([[4.0, 4.0, 16.0, 16.0]])
    batch = [
        {"image": torch.zeros(3, 32, 32), "instances": instances((32, 32), boxes), "height": height, "width": 32}
        for boxes, height in ((box, 16), (box[:0], 7), (box.repeat(2, 1), 64))
    ]
    truth = ground_truth(batch, 1, CPU, True)
    assert truth.boxes.tolist() == [[4, 4, 15, 14], [4, 4, 15, 15.5], [4, 4, 15, 15.5]]
    assert truth.image.tolist() == [0, 2, 2]
    assert len(ground_truth(batch[1:2], 1, CPU, True).boxes) == 0


def mapped(tmp_path: Any, resized: tuple[int, int], flip: bool) -> dict[str, Any]:
    """An image with `BOXES` as the mapper gives it."""
    path = str(tmp_path / "image.png")
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    annotations = [
        {"bbox": list(map(float, box)), "bbox_mode": BoxMode.XYWH_ABS, "category_id": i % 3, "iscrowd": 0}
        for i, box in enumerate(BOXES)
    ]
    mapper = FastMapper(
        is_train=True, augmentations=[T.Resize(resized), T.RandomFlip(prob=float(flip))], image_format="BGR"
    )
    return mapper({"file_name": path, "height": SIZE[0], "width": SIZE[1], "annotations": annotations})


SCALES = [(60, 90), (120, 180), (96, 135), (40, 60)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("resized", SCALES)
def test_ground_truth_is_the_originals(tmp_path: Any, resized: tuple[int, int], flip: bool) -> None:
    """Boxes without area are the difference, which no location can lie in. When it mirrors, the original puts one pixel
    of the network input, not of the image, between a side and its mirror: off by a shift unless those are equal.
    """
    boxes = ground_truth([mapped(tmp_path, resized, flip)], 3, CPU, True).boxes
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
    theirs = torch.from_numpy(reference.original_truth(BOXES, SIZE, resized, flip))
    shift = (resized[1] / SIZE[1] - 1) if flip else 0.0
    assert len(theirs) == 5
    assert torch.allclose(boxes, theirs - torch.tensor([shift, 0, shift, 0]), atol=1e-4)


@pytest.mark.parametrize("recipe", ["original", "improved", "fcos_plus"])
def test_losses_are_the_originals(tmp_path: Any, recipe: str) -> None:
    torch.manual_seed(0)
    model = detector(recipe).train()
    batch = [mapped(tmp_path, size, flip) for size, flip in ((SCALES[1], False), (SCALES[0], True), (SCALES[2], False))]
    ours = model(batch)
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    size = tuple(images.tensor.shape[-2:])
    p = model.dense([features[name] for name in model.head_in_features], model.strides, size)
    real = [i for i, box in enumerate(BOXES) if len(reference.original_truth([box], SIZE, SIZE))]
    truth = [reference.original_truth(BOXES, SIZE, tuple(x["image"].shape[-2:]), f) for x, f in zip(batch, (0, 1, 0))]
    theirs = reference.fcos_losses(
        p.logits, p.raw_ltrb, p.quality, points_of(p.locations), truth, [[i % 3 for i in real]] * 3, RECIPES[recipe]
    )
    for name, their in (("cls", "class"), ("loc", "box"), ("ctr", "quality")):
        assert ours[f"loss_fcos_{name}"].item() == pytest.approx(theirs[their].item(), rel=1e-4)
    whole = model.whole_batch(batch)
    assert sum(v.item() for v in model(batch, whole).values()) == pytest.approx(sum(v.item() for v in ours.values()))
    model.inclusive_far_corner = False
    assert model(batch)["loss_fcos_loc"].item() != pytest.approx(ours["loss_fcos_loc"].item(), rel=1e-4)


# ------------------------------------------------------------------------------------------------------ on the way out
def sure(recipe: str) -> Any:
    """A detector that finds something without training; many of its boxes end outside of the image."""
    torch.manual_seed(1)
    model = detector(recipe).eval()
    head = model.dense.head
    with torch.no_grad():
        for part, std, bias in ((head.cls_logits, 0.3, 0.0), (head.bbox_pred, 0.3, 1.5), (head.quality, 0.3, 1.0)):
            part.weight.normal_(std=std)
            part.bias.fill_(bias)
        if recipe in ("original", "fcos_plus"):
            head.bbox_pred.bias.fill_(3.0)
    return model


@pytest.mark.parametrize("recipe", ["original", "improved", "fcos_plus"])
def test_detections_are_the_originals(recipe: str) -> None:
    """A batch of images at several scales: as many boxes, those of one pixel included, where the original has them."""
    model = sure(recipe).double()
    wanted = [(60, 90), (64, 96), (128, 200)]
    resized = [(120, 180), (64, 96), (96, 150)]
    batch = [image_inputs(size, height=h, width=w) for size, (h, w) in zip(resized, wanted)]
    with torch.no_grad():
        found = [x["instances"] for x in model(batch)]
        images = model.preprocess_image(batch)
        features = model.backbone(images.tensor)
        size = tuple(images.tensor.shape[-2:])
        p = model.dense([features[name] for name in model.head_in_features], model.strides, size)
    expected = reference.detect(
        p.logits, p.raw_ltrb, p.quality, points_of(p.locations), images.image_sizes, RECIPES[recipe]
    )
    thin = 0
    for mine, theirs, *sizes in zip(found, expected, wanted, resized):
        boxes = torch.tensor([reference.original_result(c.box, *sizes) for c in theirs])
        assert len(mine) == len(boxes) >= 100
        assert mine.pred_classes.tolist() == [c.label for c in theirs]
        assert torch.allclose(mine.pred_boxes.tensor[:, :2], boxes[:, :2], atol=1e-3)
        assert torch.allclose(mine.pred_boxes.tensor[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-3)
        thin += int((boxes[:, 2:] == 1).any(dim=1).sum())
    assert thin > 0


def test_boxes_without_area() -> None:
    """Detectron2 drops them, torchvision keeps them."""
    model, inputs = sure("torchvision"), image_inputs((64, 96))
    with torch.no_grad():
        all_of_them = model([inputs])[0]["instances"]
        model.keep_empty = False
        some = model([inputs])[0]["instances"]
    real = all_of_them.pred_boxes.nonempty()
    assert 0 < real.sum() < len(real)
    assert torch.equal(some.pred_boxes.tensor, all_of_them.pred_boxes.tensor[real])
