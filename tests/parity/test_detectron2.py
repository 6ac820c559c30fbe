"""The recipe `detectron2` against Detectron2's own FCOS: equal weights and inputs, one process.

Both sides get the same head outputs, or the same weights. Differences are float32's: theirs works on corner coordinates
in pixels, ours on distances in strides.

Release v0.6 cannot train on an image without boxes; there the peer is spared such images.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectron2.modeling.meta_arch import fcos as peers
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from scenes import Scene, detector, image_inputs, instances, maps_of, random_boxes, relative, scene_of, total
from torch import Tensor, nn

from fcos_d2._compat import DETECTRON2_FLAVOUR
from fcos_d2.modeling import FCOS, FCOSHead, PointAssigner

K = 4
SIZE = (256, 320)
LOSSES = ("loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr")


def peer_of(model: FCOS, norm: str = "GN") -> peers.FCOS:
    """Detectron2's FCOS on a copy of a backbone."""
    backbone = copy.deepcopy(model.backbone)
    shapes = [backbone.output_shape()[name] for name in model.head_in_features]
    kind = norm if norm != "GN" else lambda channels: nn.GroupNorm(min(32, channels), channels)  # 0.6 tries 1 channel
    head = peers.FCOSHead(input_shape=shapes, conv_dims=[64] * 4, num_classes=K, norm=kind)
    return peers.FCOS(
        backbone=backbone,
        head=head,
        head_in_features=model.head_in_features,
        num_classes=K,
        pixel_mean=model.pixel_mean.flatten().tolist(),
        pixel_std=model.pixel_std.flatten().tolist(),
    ).train()


def their_name(name: str) -> str:
    """Name of a parameter of our head in theirs."""
    pairs = {"cls_tower": "cls_subnet", "bbox_tower": "bbox_subnet", "cls_logits": "cls_score", "quality": "ctrness"}
    for ours, theirs in pairs.items():
        name = name.replace(ours, theirs)
    return name


@pytest.fixture(scope="module")
def model() -> FCOS:
    torch.manual_seed(0)
    return detector("detectron2", num_classes=K)


@pytest.fixture
def peer(model: FCOS) -> peers.FCOS:
    return peer_of(model)


def spread(boxes: Tensor) -> Tensor:
    """Leave out boxes whose area is within 16 square pixels of another: theirs cannot tell those apart."""
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i, area in enumerate(areas):
        if all(abs(area - areas[k]) > 16 for k in kept):
            kept.append(i)
    return boxes[kept]


def sized(count: int, low: float, high: float) -> Tensor:
    """Boxes with sides between two bounds, anywhere on the image and a little beyond."""
    center = torch.rand(count, 2) * torch.tensor([340.0, 276.0]) - 10
    side = low + (high - low) * torch.rand(count, 2)
    return torch.cat((center - side / 2, center + side / 2), 1)


def batch_of(kind: str) -> list[Tensor]:
    """The boxes of two images."""
    if kind == "overlapping":
        return [spread(random_boxes(30, SIZE)), spread(sized(20, 60, 140))]
    if kind == "tiny":  # of areas that are the farther apart the more of them there are
        return [spread(sized(40, 1, 16)), spread(sized(9, 0.5, 9))]
    if kind == "huge":
        return [spread(sized(12, 400, 4000)), torch.tensor([[-3000.0, -4000, 5000, 3000]])]
    if kind == "border":
        on = [[0, 0, 320, 256], [-20, -20, 20, 20], [300, 236, 400, 300], [0, 100, 8, 140], [312, 0, 320, 90]]
        return [torch.tensor(on, dtype=torch.float32), torch.tensor([[330.0, 10, 350, 50], [-90, -90, -1, -1]])]
    if kind == "range ends":  # a distance of exactly 64, 128 or 256 pixels: neither level of theirs takes it
        on = [[60, 60, 68 + 64, 68 + 64], [4, 4, 4 + 128, 4 + 128], [8, 8, 8 + 256, 8 + 200], [12, 12, 12 + 64, 60]]
        return [torch.tensor(on, dtype=torch.float32), spread(random_boxes(30, SIZE, grain=4.0))]
    if kind == "of no size":
        boxes = spread(random_boxes(6, SIZE))
        return [torch.cat((boxes, torch.tensor([[12.0, 12, 12, 12], [20, 4, 20, 90]]))), torch.tensor([[4.0, 4, 4, 4]])]
    if kind == "200":
        many = [spread(torch.cat((sized(180, 10, 200), sized(180, 200, 500)))) for _ in range(2)]
        assert min(map(len, many)) >= 200
        return [boxes[:200] for boxes in many]
    if kind == "one image without":
        return [torch.empty(0, 4), spread(random_boxes(8, SIZE))]
    assert kind == "none at all"
    return [torch.empty(0, 4), torch.empty(0, 4)]


ON_MAIN = pytest.mark.skipif(DETECTRON2_FLAVOUR != "main", reason="release v0.6 fails on images without boxes")
KINDS = [
    "overlapping",
    "tiny",
    "huge",
    "border",
    "range ends",
    "of no size",
    "200",
    pytest.param("one image without", marks=ON_MAIN),
    pytest.param("none at all", marks=ON_MAIN),
]


def scene(kind: str) -> Scene:
    made = scene_of("detectron2", counts=(0, 0), image_size=SIZE, num_classes=K)
    made.boxes = batch_of(kind)
    made.classes = [torch.randint(0, K, (len(b),)) for b in made.boxes]
    return made


def their_losses(peer: peers.FCOS, made: Scene) -> dict[str, Tensor]:
    p = made.predictions
    truth = [instances(SIZE, boxes, classes) for boxes, classes in zip(made.boxes, made.classes)]
    with EventStorage():
        return peer.forward_training(None, p.logits, [p.logits, p.raw_ltrb, p.quality], truth)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_at_the_head_outputs(kind: str, peer: peers.FCOS) -> None:
    """Three steps, so that the moving average of positives is compared, too."""
    made = scene(kind)
    maps = maps_of(made.predictions)
    positives = 0
    for _ in range(3):
        ours = made.dense.losses(made.predictions, made.ground_truth)
        theirs = their_losses(peer, made)
        assert set(ours) == set(theirs) == set(LOSSES)
        for name in LOSSES:
            assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5)
        grads = [torch.autograd.grad(total(losses), maps) for losses in (ours, theirs)]
        for start, kind_of_map in enumerate(("logits", "raw_ltrb", "quality")):
            part = slice(5 * start, 5 * start + 5)
            assert relative(grads[0][part], grads[1][part]) < 1e-5, kind_of_map
        assert made.dense.loss.average.item() == pytest.approx(peer.loss_normalizer, rel=1e-6)
        made.boxes[0] = made.boxes[0][:-1] if len(made.boxes[0]) > 1 else made.boxes[0]
        made.classes[0] = made.classes[0][: len(made.boxes[0])]
        positives += len(made.dense.targets(made.predictions.locations, made.ground_truth).positives)
    assert positives > 0 or kind == "none at all"


@pytest.mark.parametrize("spread_of_scores", [0.5, 2.0])
def test_detections(spread_of_scores: float, peer: peers.FCOS) -> None:
    """The same boxes in the same order; about a thousand candidates and hundreds of them."""
    made = scene("none at all")
    p = made.predictions
    with torch.no_grad():
        for values in p.logits:
            values.copy_(torch.randn_like(values) * spread_of_scores - 1)
        maps = [[v.clone() for v in kinds] for kinds in (p.logits, p.raw_ltrb, p.quality)]  # theirs overwrites them
        theirs = peer.forward_inference(ImageList(torch.zeros(2, 3, *SIZE), [SIZE, (200, 310)]), p.logits, maps)
        ours = made.dense.detect(p, [SIZE, (200, 310)])
    for i, expected in enumerate(theirs):
        mine = ours[(ours.image == i).nonzero().flatten()]
        assert len(expected) == 100
        assert mine.classes.tolist() == expected.pred_classes.tolist()
        assert (mine.boxes - expected.pred_boxes.tensor).abs().max() < 1e-3
        assert (mine.scores - expected.scores).abs().max() < 1e-6


def copy_head(ours: FCOSHead, theirs: peers.FCOSHead) -> None:
    state = {their_name(name): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)


def test_whole_model_in_training(model: FCOS, peer: peers.FCOS) -> None:
    copy_head(model.dense.head, peer.head)
    model.train()
    model.dense.loss.average.fill_(300.0)
    batch = []
    for _ in range(2):
        boxes = spread(random_boxes(9, (120, 160)))
        batch.append(image_inputs((120, 160), boxes, torch.randint(0, K, (len(boxes),))))
    ours = model(batch)
    with EventStorage():
        theirs = peer(batch)
    for name in LOSSES:
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5)
    model.zero_grad()
    total(ours).backward()
    total(theirs).backward()
    their_grads = {name: p.grad for name, p in peer.named_parameters()}
    for name, parameter in model.named_parameters():
        name = their_name(name.replace("dense.head", "head"))
        assert relative(parameter.grad, their_grads[name]) < 1e-3, name


def test_whole_model_in_inference(model: FCOS, peer: peers.FCOS) -> None:
    with torch.no_grad():
        head = model.dense.head
        for predictor, std, bias in ((head.cls_logits, 0.3, 0.0), (head.bbox_pred, 0.1, 1.5), (head.quality, 0.3, 1.0)):
            predictor.weight.normal_(std=std)
            predictor.bias.fill_(bias)
        copy_head(head, peer.head)
        peer.backbone.load_state_dict(model.backbone.state_dict())
        batch = [image_inputs((120, 160), height=240, width=320), image_inputs((96, 130))]
        ours, theirs = model.eval()(batch), peer.eval()(batch)
    for mine, expected in zip((r["instances"] for r in ours), (r["instances"] for r in theirs)):
        assert len(expected) > 20
        assert mine.image_size == expected.image_size
        assert mine.pred_classes.tolist() == expected.pred_classes.tolist()
        assert (mine.pred_boxes.tensor - expected.pred_boxes.tensor).abs().max() < 1e-3
        assert (mine.scores - expected.scores).abs().max() < 1e-6


def test_head_with_batch_norm_for_each_level(model: FCOS) -> None:
    """Shared weight and bias, statistics for each level: outputs and running statistics stay equal over two passes."""
    ours = FCOSHead(num_classes=K, in_channels=64, norm="BN", norm_shared_affine=True, level_scale=False)
    theirs = peer_of(model, norm="BN").head
    state = theirs.state_dict()
    with torch.no_grad():
        for name, value in ours.state_dict().items():
            name = their_name(name).replace(".levels.", ".")
            if name in state:  # theirs names a norm's level by its number, after the norm's own weight and bias
                state[name].copy_(value)
    for _ in range(2):
        maps = [torch.randn(2, 64, size, size) for size in (16, 8, 4, 2, 2)]
        for mine, expected in zip(ours(maps), theirs(maps)):
            assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(mine, expected))
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, state[their_name(name).replace(".levels.", ".")], atol=1e-6), name


# ------------------------------------------------------------------------------------------------ where theirs is wrong
def their_choice(peer: peers.FCOS, made: Scene, boxes: Tensor) -> set[int]:
    """Rows of `boxes` that theirs assigns to any location; each box has its row for a class."""
    anchors = peer.anchor_generator(made.predictions.logits)
    labels, _ = peer.label_anchors(anchors, [instances(SIZE, boxes, torch.arange(len(boxes)))])
    return set(labels[0].tolist()) - {K}


def our_choice(made: Scene, boxes: Tensor) -> set[int]:
    assigner = PointAssigner(range_ends="open")
    image = torch.zeros(len(boxes), dtype=torch.int64)
    return set(assigner(made.predictions.locations, boxes, image, 1).flatten().tolist()) - {-1}


def test_areas_that_differ_by_less_than_eight(peer: peers.FCOS) -> None:
    """1e8 - area in float32 has steps of 8: the order of annotations decides there, the area here."""
    made = scene("none at all")
    small, large = [100.0, 100, 190, 189.96], [100.0, 99.985, 190, 189.975]  # 8,096.4 and 8,099.1 square pixels
    assert their_choice(peer, made, torch.tensor([small, large])) == {0}
    assert their_choice(peer, made, torch.tensor([large, small])) == {0}  # the larger box has it all
    assert our_choice(made, torch.tensor([small, large])) == {0}
    assert our_choice(made, torch.tensor([large, small])) == {1}


def test_boxes_over_a_hundred_million_square_pixels(peer: peers.FCOS) -> None:
    """1e8 - area is negative, and the box is lost."""
    made = scene("none at all")
    box = torch.tensor([[128 - 6000.0, 128 - 6000, 128 + 6000, 128 + 6000]])
    assert their_choice(peer, made, box) == set()
    assert our_choice(made, box) == {0}


def test_a_class_that_the_model_does_not_know(model: FCOS, peer: peers.FCOS) -> None:
    """Theirs takes the class K for background, and the box for no box."""
    boxes = torch.tensor([[30.0, 30, 80, 80], [60.0, 60, 120, 110]])

    def batch(classes: list[int]) -> list[dict[str, Any]]:
        torch.manual_seed(1)
        return [image_inputs((128, 128), boxes, torch.tensor(classes), file_name="wrong.jpg") for _ in range(2)]

    with EventStorage():
        assert total(peer(batch([0, K]))).isfinite()
    with pytest.raises(
        ValueError, match=rf"^image wrong\.jpg has the class index {K}, but the model knows {K} classes"
    ):
        model.train()(batch([0, K]))
