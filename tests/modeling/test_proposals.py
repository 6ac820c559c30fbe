"""FCOS in place of a region proposal network."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import ImageList, Instances
from scenes import STRIDES, dense_of, detector, feature_sizes, image_inputs, instances, random_boxes, total
from torch import Tensor

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.errors import FcosError
from fcos_d2.modeling import FCOSProposals, Selector
from fcos_d2.modeling.proposals import first_stage
from fcos_d2.zoo.proposals import PROPOSAL_RECIPES

SIZES = [(64, 96), (50, 70)]
NAMES = ["p3", "p4", "p5", "p6", "p7"]


@pytest.fixture
def generator() -> FCOSProposals:
    """Sure of itself, so that there is something to propose without training."""
    dense = dense_of("improved")
    with torch.no_grad():
        dense.head.cls_logits.bias.fill_(0.0)
        dense.head.bbox_pred.bias.fill_(1.5)
    return FCOSProposals(
        dense=dense,
        train_selector=Selector(max_detections=5, max_detections_ties="cut"),
        in_features=NAMES,
        strides=STRIDES,
        num_classes=3,
    )


@pytest.fixture
def images() -> ImageList:
    return ImageList(torch.zeros(2, 3, 64, 96), SIZES)


@pytest.fixture
def features() -> dict[str, Tensor]:
    maps = {name: torch.randn(2, 32, *size, requires_grad=True) for name, size in zip(NAMES, feature_sizes((64, 96)))}
    return {"res2": torch.zeros(2, 8, 16, 24), **maps}  # what is not asked for is left alone


def test_registered_under_its_name() -> None:
    assert PROPOSAL_GENERATOR_REGISTRY.get("FCOSProposals") is fcos_d2.FCOSProposals is FCOSProposals


def test_proposals_in_inference(generator: FCOSProposals, images: ImageList, features: dict[str, Tensor]) -> None:
    proposals, losses = generator.eval()(images, features)
    assert losses == {}
    assert [p.image_size for p in proposals] == SIZES
    for p in proposals:
        assert len(p) > 5
        assert set(p.get_fields()) == {"proposal_boxes", "objectness_logits", "scores", "pred_classes"}
        boxes = p.proposal_boxes.tensor
        assert p.proposal_boxes.nonempty().all()
        assert boxes.min() >= 0
        assert (boxes[:, 2] <= p.image_size[1]).all()
        assert (boxes[:, 3] <= p.image_size[0]).all()
        assert (p.objectness_logits.diff() <= 0).all()
        assert torch.allclose(p.objectness_logits.sigmoid(), p.scores, atol=1e-5)


def test_training_has_losses_and_its_own_selector(
    generator: FCOSProposals, images: ImageList, features: dict[str, Tensor]
) -> None:
    truth = [instances(size, random_boxes(n, size)) for size, n in zip(SIZES, (3, 0))]
    proposals, losses = generator.train()(images, features, truth)
    assert list(losses) == ["loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"]
    assert total(losses).isfinite()
    assert all(0 < len(p) <= 5 for p in proposals)
    # Nothing else: ROI heads join the ground truth to them, which must have all fields that they have.
    assert all(set(p.get_fields()) == {"proposal_boxes", "objectness_logits"} for p in proposals)
    assert not any(p.proposal_boxes.tensor.requires_grad or p.objectness_logits.requires_grad for p in proposals)
    total(losses).backward()
    assert all(p.grad is not None for p in generator.parameters())
    assert all(features[name].grad is not None for name in NAMES)


def test_nothing_to_propose(generator: FCOSProposals, images: ImageList, features: dict[str, Tensor]) -> None:
    with torch.no_grad():
        generator.dense.head.cls_logits.bias.fill_(-50.0)
    proposals, _ = generator.eval()(images, features)
    assert [len(p) for p in proposals] == [0, 0]
    assert proposals[0].proposal_boxes.tensor.shape == (0, 4)


def test_a_class_that_the_generator_does_not_know(
    generator: FCOSProposals, images: ImageList, features: dict[str, Tensor]
) -> None:
    truth = [instances(size, random_boxes(1, size), torch.tensor([3])) for size in SIZES]
    with pytest.raises(ValueError, match=r"^image 0 of the batch has the class index 3, but the model knows 3 classes"):
        generator.train()(images, features, truth)


def test_every_object_is_one_of_one_class(images: ImageList, features: dict[str, Tensor]) -> None:
    """Whatever the classes of the data are, losses are those of objects of class 0, and the data stay as they are."""
    options = {"train_selector": Selector(max_detections=5), "in_features": NAMES, "strides": STRIDES}
    agnostic = FCOSProposals(dense=dense_of("improved", 1), num_classes=1, class_agnostic=True, **options).train()
    boxes = [random_boxes(n, size) for n, size in zip((3, 2), SIZES)]
    truth = [instances(size, own, torch.arange(len(own)) + 40) for size, own in zip(SIZES, boxes)]
    plain = [instances(size, own) for size, own in zip(SIZES, boxes)]
    losses = [agnostic(images, features, given)[1] for given in (truth, plain)]
    assert losses[0] == losses[1] and truth[0].gt_classes.tolist() == [40, 41, 42]
    with pytest.raises(ValueError, match="class_agnostic=True and num_classes=3"):
        FCOSProposals(dense=dense_of("improved"), num_classes=3, class_agnostic=True, **options)


def test_objectness_without_centerness_is_the_class_logit(images: ImageList, features: dict[str, Tensor]) -> None:
    recipe = PROPOSAL_RECIPES["proposals_no_centerness"]
    dense = dense_of(recipe, 1)
    names = list(recipe.features)
    maps = {name: features["p3"].detach()[:, :, : 16 // 2**i, : 24 // 2**i] for i, name in enumerate(names)}
    generator = FCOSProposals(
        dense=dense, train_selector=dense.selector, in_features=names, strides=(4, 8, 16, 32, 64), num_classes=1
    ).eval()
    with torch.no_grad():
        dense.head.cls_logits.weight.normal_(std=0.3)
        found, _ = generator(images, maps)
        logits = torch.cat([x.flatten() for x in dense.head([maps[name] for name in names])[0]])
    assert len(found[0]) > 20
    assert all((logits - value).abs().min() < 1e-3 for value in found[0].objectness_logits if value.abs() < 8)


def test_the_selection_is_that_of_detectron2s_rpn(images: ImageList, features: dict[str, Tensor]) -> None:
    """Detectron2's `find_top_rpn_proposals` makes the same proposals of the same boxes and scores."""
    recipe = PROPOSAL_RECIPES["proposals"].derived("trial", "this test", selector={"topk": 40, "max_detections": 60})
    dense, names = dense_of(recipe, 1), list(recipe.features)
    maps = [features["p3"].detach()[:, :, : 16 // 2**i, : 24 // 2**i] for i in range(len(names))]
    with torch.no_grad():
        for conv, std in ((dense.head.cls_logits, 0.3), (dense.head.quality, 0.3), (dense.head.bbox_pred, 0.02)):
            conv.weight.normal_(std=std)
        dense.head.bbox_pred.bias.fill_(3.0)
        generator = FCOSProposals(
            dense=dense, train_selector=dense.selector, in_features=names, strides=(4, 8, 16, 32, 64), num_classes=1
        ).eval()
        found, _ = generator(images, dict(zip(names, maps)))
        predictions = dense(maps, (4, 8, 16, 32, 64), (64, 96))
        boxes, scores = [], []
        for level, logits, quality, raw in zip(
            predictions.locations.levels, predictions.logits, predictions.quality, predictions.raw_ltrb
        ):
            here = slice(level.start, level.end)
            at, stride = predictions.locations.xy[here], predictions.locations.stride[here]
            ltrb = dense.coder.activate(raw).flatten(2).transpose(1, 2)
            boxes.append(torch.stack([dense.coder.decode(at, stride, x) for x in ltrb]))
            scores.append((logits.sigmoid() * quality.sigmoid()).sqrt().logit(eps=1e-6).flatten(1))
        theirs = find_top_rpn_proposals(boxes, scores, SIZES, 0.7, 40, 60, 0.0, False)
    for mine, other in zip(found, theirs):
        assert 20 < len(mine) == len(other) <= 60
        assert torch.allclose(mine.proposal_boxes.tensor, other.proposal_boxes.tensor, atol=1e-4)
        assert torch.allclose(mine.objectness_logits, other.objectness_logits, atol=1e-3)


def test_the_first_stage_of_a_two_stage_detector() -> None:
    """It proposes what the second stage is given, and shares the weights."""
    cfg = zoo.get_config("faster_rcnn_fcos_R_18_slim_FPN_small")
    model = instantiate(cfg.model).eval()
    alone = first_stage(model)
    given: list[list[Instances]] = []
    model.roi_heads.register_forward_pre_hook(lambda _, arguments: given.append(arguments[2]))
    inputs = [image_inputs((64, 96), height=64, width=96)]
    with torch.no_grad():
        model(inputs)
        found = alone(inputs)[0]["proposals"]
    assert 0 < len(found) == len(given[0][0]) <= 1000
    assert torch.equal(found.objectness_logits, given[0][0].objectness_logits)
    assert {p.data_ptr() for p in alone.parameters()} < {p.data_ptr() for p in model.parameters()}
    with pytest.raises(FcosError, match=r"The model is FCOS, which proposes nothing: .*faster_rcnn_fcos_R_50_FPN_1x"):
        first_stage(detector())
