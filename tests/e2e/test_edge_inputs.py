"""Whole small detectors on inputs that break others: finite losses and gradients, or one sentence naming the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from scenes import detector, distinct, image_inputs, random_boxes, thin, total
from torch import Tensor, nn

import fcos_d2
from fcos_d2.zoo.recipes import RECIPES

NONE = torch.empty(0, 4)
# Those for pyramids with p2 need another backbone.
KINDS = [
    n for n in distinct("grid", "coder", "loss", "head", "head_name", "features") if RECIPES[n].features[0] == "p3"
]


def full(size: tuple[int, int], count: int = 4) -> dict[str, Any]:
    return image_inputs(size, random_boxes(count, size), torch.randint(0, 3, (count,)))


BATCHES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "one image without boxes": lambda: [image_inputs((64, 64), NONE), full((48, 64))],
    "no boxes at all": lambda: [image_inputs((64, 64), NONE), image_inputs((33, 64), NONE)],
    "1x1 and 33x31 images": lambda: [
        image_inputs((1, 1), torch.tensor([[0.0, 0, 1, 1]])),
        image_inputs((33, 31), torch.tensor([[2.0, 3, 30, 33]])),
    ],
    "boxes of no size": lambda: [
        image_inputs((64, 64), torch.tensor([[4.0, 4, 4, 4], [12, 0, 12, 64], [0, 20, 64, 20]])),
        image_inputs((64, 64), torch.tensor([[40.0, 40, 10, 10], [8, 8, 40, 40]])),
    ],
    "boxes over and outside the border": lambda: [
        image_inputs((64, 64), torch.tensor([[-500.0, -300, 900, 700], [-30, 10, 12, 40]])),
        image_inputs((64, 64), torch.tensor([[70.0, 70, 90, 90], [-50, -50, -1, -1]])),
    ],
    "a box of a million million square pixels": lambda: [
        image_inputs((64, 64), torch.tensor([[-5e5, -5e5, 5e5, 5e5]])),
        full((64, 64)),
    ],
    "300 boxes": lambda: [full((64, 64), 300), full((64, 64), 1)],
    "one image": lambda: [full((64, 96))],
    "unlike sizes": lambda: [full((32, 128)), full((128, 32))],
}


def check_training(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Every loss is finite, and every trainable parameter gets a finite gradient."""
    losses = model.train()(batch)
    assert all(v.isfinite() for v in losses.values()), losses
    assert all(v >= -1e-4 for v in losses.values()), losses
    model.zero_grad()
    total(losses).backward()
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert not [name for name, p in trainable if p.grad is None]
    assert not [name for name, p in trainable if not p.grad.isfinite().all()]
    return losses


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """With few convolutions; a whole one of the recipe "improved" gets all batches below."""
    torch.manual_seed(0)
    return thin(request.param)


@pytest.mark.parametrize("kind", ["one image without boxes", "no boxes at all", "1x1 and 33x31 images"])
def test_training_of_every_recipe(model: nn.Module, kind: str) -> None:
    losses = check_training(model, BATCHES[kind]())
    if kind == "no boxes at all":
        cls, *others = losses.values()
        assert cls > 0
        assert all(v == 0 for v in others)


def test_inference_of_every_recipe(model: nn.Module) -> None:
    with torch.no_grad():
        results = model.eval()([image_inputs((1, 1)), image_inputs((33, 31))])
    for found, size in zip((r["instances"] for r in results), ((1, 1), (33, 31))):
        assert found.image_size == size
        assert found.pred_boxes.tensor.isfinite().all()
        assert found.scores.isfinite().all()


@pytest.fixture(scope="module")
def improved() -> nn.Module:
    torch.manual_seed(0)
    return detector("improved")


@pytest.mark.parametrize("kind", BATCHES)
def test_training(improved: nn.Module, kind: str) -> None:
    check_training(improved, BATCHES[kind]())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 31)])
def test_a_single_small_image_in_training(size: tuple[int, int]) -> None:
    """Alone in its batch; batch norm cannot normalise the single value of its coarsest map, so it is frozen."""
    model = detector("improved", norm="FrozenBN")
    check_training(model, [image_inputs(size, torch.tensor([[0.0, 0, size[1], size[0]]]))])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["original", "improved", "adelaidet_iou", "detectron2"])
def test_a_step_in_mixed_precision(name: str, channels_last: bool) -> None:
    """128 pixels: of a map of one cell, PyTorch's CPU gives undefined gradients of a bfloat16 strided convolution."""
    model = detector(name)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        losses = check_training(model, [full((128, 128)), image_inputs((128, 128), NONE)])
        assert {v.dtype for v in losses.values()} == {torch.float32}
        with torch.no_grad():
            results = model.eval()([image_inputs((64, 64))])
    assert results[0]["instances"].pred_boxes.tensor.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_pixels_that_are_not_finite(improved: nn.Module, value: float, training: bool) -> None:
    batch = [full((64, 64)), full((64, 64))]
    batch[1]["image"] = torch.rand(3, 64, 64)
    batch[1]["image"][2, 63, 63] = value
    batch[1]["file_name"] = "photos/broken.jpg"
    with pytest.raises(
        ValueError, match=r"^image photos/broken\.jpg holds values that are not finite \(NaN or infinity\)"
    ):
        improved.train(training)(batch)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_boxes_that_are_not_finite(improved: nn.Module, value: float) -> None:
    batch = [full((64, 64)), full((64, 64))]
    batch[1]["instances"].gt_boxes.tensor[3, 0] = value
    batch[1]["image_id"] = 139
    with pytest.raises(ValueError, match=r"^image 139 has a box that is not finite: row 3, \["):
        improved.train()(batch)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": torch.zeros(3, 0, 5)}, r"^image x\.png has the shape \(3, 0, 5\); \(channels, height, width\)"),
        ({"image": torch.zeros(40, 40)}, r"^image x\.png has the shape \(40, 40\); \(channels, height, width\)"),
        ({"image": torch.zeros(3, 40, 40)}, r"^image x\.png has no 'instances': training needs annotations\.$"),
    ],
)
def test_unusable_inputs(improved: nn.Module, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        improved.train()([{**inputs, "file_name": "x.png"}])


# ------------------------------------------------------------------------------------------------------------ training
def fit(model: nn.Module, batch: list[dict[str, Any]], steps: int, rate: float) -> list[float]:
    """Total loss of each step on one batch."""
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    history = []
    for _ in range(steps):
        loss = total(model.train()(batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        history.append(loss.item())
    return history


def easy_batch() -> list[dict[str, Any]]:
    """Bright squares on noise."""
    batch = []
    for x0, y0, side in ((8, 8, 32), (20, 12, 40)):
        inputs = image_inputs((64, 64), torch.tensor([[x0, y0, x0 + side, y0 + side]], dtype=torch.float32))
        inputs["image"][:, y0 : y0 + side, x0 : x0 + side] = 255
        batch.append(inputs)
    return batch


@pytest.mark.parametrize(
    "name", ["torchvision", *(pytest.param(x, marks=pytest.mark.slow) for x in ("original", "adelaidet_iou"))]
)
def test_training_lowers_the_loss(name: str) -> None:
    history = fit(thin(name, num_classes=1), easy_batch(), steps=30, rate=0.02)
    assert all(map(math.isfinite, history))
    assert sum(history[-3:]) < 0.7 * sum(history[:3]), history


def test_a_fitted_detector_finds_what_it_was_shown() -> None:
    """Its loss is lowered, too, as that of the others above."""
    model, batch = thin("improved", num_classes=1), easy_batch()
    history = fit(model, batch, steps=60, rate=0.02)
    assert all(map(math.isfinite, history))
    assert sum(history[27:30]) < 0.7 * sum(history[:3]), history
    with torch.no_grad():
        results = [r["instances"] for r in model.eval()(batch)]
    for found, inputs in zip(results, batch):
        (wanted,) = inputs["instances"].gt_boxes.tensor
        best = found.pred_boxes.tensor[0]
        low, high = torch.maximum(best[:2], wanted[:2]), torch.minimum(best[2:], wanted[2:])
        overlap = (high - low).clamp(min=0).prod()
        union = (best[2:] - best[:2]).prod() + (wanted[2:] - wanted[:2]).prod() - overlap
        assert overlap / union > 0.5


# ----------------------------------------------------------------------------------------------------------- two stages
@pytest.fixture(scope="module")
def two_stage_config() -> CfgNode:
    """Faster R-CNN whose proposals come from FCOS, from keys alone."""
    cfg = get_cfg()
    fcos_d2.add_fcos_config(cfg)
    cfg.merge_from_list(
        [
            *("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.DEVICE", "cpu"),
            *("MODEL.BACKBONE.NAME", "build_fcos_resnet_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT", 0),
            *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.NORM", "BN"),
            *("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
            *("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"]),
            *("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], "MODEL.FPN.OUT_CHANNELS", 64),
            *("MODEL.PIXEL_STD", [57.375, 57.12, 58.395]),
            *("MODEL.PROPOSAL_GENERATOR.NAME", "FCOSProposals", "MODEL.FCOS.NUM_CLASSES", 1),
            *("MODEL.FCOS.INFERENCE_TH_TRAIN", 0.001, "MODEL.FCOS.INFERENCE_TH_TEST", 0.001),
            *("MODEL.FCOS.POST_NMS_TOPK_TRAIN", 30, "MODEL.FCOS.POST_NMS_TOPK_TEST", 20),
            *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4", "p5"]),
            *("MODEL.ROI_HEADS.NUM_CLASSES", 1, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 1),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 5),
        ]
    )
    return cfg


@pytest.mark.slow
def test_two_stages_train(two_stage_config: CfgNode) -> None:
    model = build_model(two_stage_config)
    losses = check_two_stages(model, easy_batch())
    assert set(losses) == {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr", "loss_cls", "loss_box_reg"}
    with EventStorage():
        history = fit(model, easy_batch(), steps=30, rate=0.01)
    assert sum(history[-3:]) < 0.8 * sum(history[:3]), history
    with torch.no_grad():
        results = model.eval()([{**easy_batch()[0], "height": 128, "width": 128}])
    found = results[0]["instances"]
    assert found.image_size == (128, 128)
    assert found.pred_boxes.tensor.isfinite().all()


@pytest.mark.parametrize("kind", ["one image without boxes", "no boxes at all", "1x1 and 33x31 images"])
def test_two_stages_on_edge_inputs(two_stage_config: CfgNode, kind: str) -> None:
    batch = BATCHES[kind]()
    for inputs in batch:
        inputs["instances"].gt_classes.zero_()
    check_two_stages(build_model(two_stage_config), batch)


def check_two_stages(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    with EventStorage():
        return check_training(model, batch)
