"""The recipe `torchvision` against torchvision's own FCOS: equal weights and inputs, one process.

Its locations start in the image's corner and step by the padded input size // the feature size. Images have sizes that
its resizing leaves alone.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import reference
import torch
from scenes import Scene, detector, image_inputs, maps_of, random_boxes, relative, scene_of, total
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS as Peer
from torchvision.models.detection.image_list import ImageList

from fcos_d2.modeling import FCOS, LocationGrid, PointAssigner

K = 4
# In y and x, P6 steps by 64 and 53 pixels and P7 by 128 and 80: less than their stride, and not alike.
SIZE = (128, 160)
NAMES = {
    "loss_fcos_cls": "classification",
    "loss_fcos_loc": "bbox_regression",
    "loss_fcos_ctr": "bbox_ctrness",
}


class Pyramid(nn.Module):
    """A Detectron2 backbone as torchvision expects one."""

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.backbone, self.names, self.out_channels = backbone, names, 64

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.backbone(x)
        return OrderedDict((name, maps[name]) for name in self.names)


@pytest.fixture(scope="module")
def model() -> FCOS:
    torch.manual_seed(0)
    return detector("torchvision", num_classes=K)


@pytest.fixture
def peer(model: FCOS) -> Peer:
    """torchvision's FCOS on a copy of the backbone; pixels are in 0..1 there."""
    mean, std = model.pixel_mean.flatten() / 255, model.pixel_std.flatten() / 255
    pyramid = Pyramid(copy.deepcopy(model.backbone), model.head_in_features)
    return Peer(pyramid, K, min_size=128, max_size=160, image_mean=mean.tolist(), image_std=std.tolist()).train()


def their_name(name: str) -> str:
    """Name of a parameter of our head in theirs."""
    pairs = {
        "cls_tower": "classification_head.conv",
        "bbox_tower": "regression_head.conv",
        "cls_logits": "classification_head.cls_logits",
        "bbox_pred": "regression_head.bbox_reg",
        "quality": "regression_head.bbox_ctrness",
    }
    part, rest = name.split(".", 1)
    return f"{pairs[part]}.{rest}"


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
    center = torch.rand(count, 2) * torch.tensor([180.0, 148.0]) - 10
    side = low + (high - low) * torch.rand(count, 2)
    return torch.cat((center - side / 2, center + side / 2), 1)


def batch_of(kind: str) -> list[Tensor]:
    """The boxes of two images."""
    if kind == "overlapping":
        return [spread(random_boxes(30, SIZE)), spread(sized(20, 60, 140))]
    if kind == "tiny":
        return [spread(sized(40, 1, 16)), spread(sized(9, 0.5, 9))]
    if kind == "huge":
        return [spread(sized(12, 400, 4000)), torch.tensor([[-3000.0, -4000, 5000, 3000]])]
    if kind == "border":
        on = [[0, 0, 160, 128], [-20, -20, 20, 20], [150, 116, 200, 150], [0, 60, 8, 90], [152, 0, 160, 50]]
        return [torch.tensor(on, dtype=torch.float32), torch.tensor([[170.0, 10, 190, 50], [-90, -90, -1, -1]])]
    if kind == "range ends":
        on = [[8, 8, 72, 72], [-4, -4, 132, 132], [0, 0, 128, 64], [16, 16, 80, 60]]
        return [torch.tensor(on, dtype=torch.float32), spread(random_boxes(30, SIZE, grain=4.0))]
    if kind == "of no size":
        boxes = spread(random_boxes(6, SIZE))
        return [torch.cat((boxes, torch.tensor([[16.0, 16, 16, 16], [24, 4, 24, 90]]))), torch.tensor([[8.0, 8, 8, 8]])]
    if kind == "200":
        many = [spread(torch.cat((sized(200, 10, 200), sized(200, 200, 500)))) for _ in range(2)]
        assert min(map(len, many)) >= 200
        return [boxes[:200] for boxes in many]
    if kind == "one image without":
        return [torch.empty(0, 4), spread(random_boxes(8, SIZE))]
    assert kind == "none at all"
    return [torch.empty(0, 4), torch.empty(0, 4)]


KINDS = ["overlapping", "tiny", "huge", "border", "range ends", "of no size", "200", "one image without", "none at all"]


def scene(kind: str) -> Scene:
    made = scene_of("torchvision", counts=(0, 0), image_size=SIZE, num_classes=K)
    made.boxes = batch_of(kind)
    made.classes = [torch.randint(0, K, (len(b),)) for b in made.boxes]
    return made


def head_outputs(made: Scene) -> dict[str, Tensor]:
    """What their head would give; relu belongs to it."""

    def flat(maps: list[Tensor]) -> Tensor:
        return torch.cat([v.permute(0, 2, 3, 1).flatten(1, 2) for v in maps], 1)

    p = made.predictions
    return {
        "cls_logits": flat(p.logits),
        "bbox_regression": flat(p.raw_ltrb).relu(),
        "bbox_ctrness": flat(p.quality),
    }


def anchors_of(peer: Peer, made: Scene) -> list[Tensor]:
    return peer.anchor_generator(ImageList(torch.zeros(2, 3, *SIZE), [SIZE] * 2), made.predictions.logits)


def sizes_of(made: Scene) -> list[int]:
    return [level.size for level in made.predictions.locations.levels]


def their_losses(peer: Peer, made: Scene) -> dict[str, Tensor]:
    targets = [{"boxes": b, "labels": c} for b, c in zip(made.boxes, made.classes)]
    return peer.compute_loss(targets, head_outputs(made), anchors_of(peer, made), sizes_of(made))


@pytest.mark.parametrize("size", [SIZE, (64, 224), (96, 608)])
def test_locations(size: tuple[int, int], peer: Peer) -> None:
    features = [torch.zeros(1, 1, -(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32, 64, 128)]
    (anchors,) = peer.anchor_generator(ImageList(torch.zeros(1, 3, *size), [size]), features)
    sizes = [tuple(v.shape[-2:]) for v in features]
    at = LocationGrid(origin="corner")(sizes, (8, 16, 32, 64, 128), size, torch.device("cpu"))
    assert torch.equal(at.xy, (anchors[:, :2] + anchors[:, 2:]) / 2)
    assert torch.equal(at.stride, anchors[:, 2] - anchors[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_at_the_head_outputs(kind: str, peer: Peer) -> None:
    made = scene(kind)
    ours, theirs = made.dense.losses(made.predictions, made.ground_truth), their_losses(peer, made)
    for name, their in NAMES.items():
        assert ours[name].item() == pytest.approx(theirs[their].item(), rel=1e-5)
    maps = maps_of(made.predictions)
    grads = [torch.autograd.grad(total(losses), maps) for losses in (ours, theirs)]
    for start, kind_of_map in enumerate(("logits", "raw_ltrb", "quality")):
        part = slice(5 * start, 5 * start + 5)
        assert relative(grads[0][part], grads[1][part]) < 1e-5, kind_of_map
    found = len(made.dense.targets(made.predictions.locations, made.ground_truth).positives)
    assert found > 0 or kind == "none at all"


@pytest.mark.parametrize("spread_of_scores", [0.5, 2.0])
def test_detections(spread_of_scores: float, peer: Peer) -> None:
    made = scene("none at all")
    p = made.predictions
    with torch.no_grad():
        for values in p.logits:
            values.copy_(torch.randn_like(values) * spread_of_scores - 1)
        image_sizes = [SIZE, (100, 155)]
        split = {name: list(v.split(sizes_of(made), 1)) for name, v in head_outputs(made).items()}
        anchors = [list(a.split(sizes_of(made))) for a in anchors_of(peer, made)]
        theirs = peer.postprocess_detections(split, anchors, image_sizes)
        ours = made.dense.detect(p, image_sizes)
    for i, expected in enumerate(theirs):
        mine = ours[(ours.image == i).nonzero().flatten()]
        assert len(expected["boxes"]) == 100
        assert mine.classes.tolist() == expected["labels"].tolist()
        assert (mine.boxes - expected["boxes"]).abs().max() < 1e-3
        assert (mine.scores - expected["scores"]).abs().max() < 1e-6


def copy_weights(model: FCOS, peer: Peer) -> None:
    head = {their_name(name): value for name, value in model.dense.head.state_dict().items()}
    peer.head.load_state_dict(head, strict=True)
    peer.backbone.backbone.load_state_dict(model.backbone.state_dict(), strict=True)


def test_preprocessing(model: FCOS, peer: Peer) -> None:
    batch = [image_inputs(SIZE), image_inputs((128, 131))]
    ours = model.preprocess_image(batch)
    theirs, _ = peer.transform([x["image"] / 255 for x in batch])
    assert ours.image_sizes == theirs.image_sizes
    assert torch.allclose(ours.tensor, theirs.tensors, atol=1e-5)


def test_whole_model_in_training(model: FCOS, peer: Peer) -> None:
    """In double precision: in single, sums in another order switch some unit near 0, and gradients differ in the third
    digit. Pixels are given as the network wants them, for they are scaled by formulas that differ in the last one."""
    copy_weights(model, peer)
    model.double(), peer.double()
    peer.transform.image_mean, peer.transform.image_std = [0.0] * 3, [1.0] * 3
    plain = FCOS(
        backbone=model.backbone, dense=model.dense, num_classes=K, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3
    ).double()
    plain.train()
    batch = []
    for _ in range(2):
        boxes = spread(random_boxes(9, SIZE))
        batch.append(image_inputs(SIZE, boxes, torch.randint(0, K, (len(boxes),))))
        batch[-1]["image"] = torch.randn(3, *SIZE, dtype=torch.float64)
    ours = plain(batch)
    truth = [{"boxes": x["instances"].gt_boxes.tensor, "labels": x["instances"].gt_classes} for x in batch]
    theirs = peer([x["image"] for x in batch], truth)
    for name, their in NAMES.items():
        assert ours[name].item() == pytest.approx(theirs[their].item(), rel=1e-5)
    plain.zero_grad()
    total(ours).backward()
    total(theirs).backward()
    their_grads = {name: p.grad for name, p in peer.named_parameters()}
    for name, parameter in plain.named_parameters():
        part, rest = name.split(".", 1)
        name = f"backbone.{name}" if part == "backbone" else "head." + their_name(rest.removeprefix("head."))
        assert relative(parameter.grad, their_grads[name]) < 1e-5, name


def test_whole_model_in_inference(model: FCOS, peer: Peer) -> None:
    head = model.dense.head
    with torch.no_grad():
        for predictor, std, bias in ((head.cls_logits, 0.3, 0.0), (head.bbox_pred, 0.3, 1.5), (head.quality, 0.3, 1.0)):
            predictor.weight.normal_(std=std)
            predictor.bias.fill_(bias)
        copy_weights(model, peer)
        model.double(), peer.double()
        batch = [{**inputs, "image": inputs["image"].double()} for inputs in map(image_inputs, (SIZE, (128, 131)))]
        ours, theirs = model.eval()(batch), peer.eval()([x["image"] / 255 for x in batch])
    for mine, expected in zip((r["instances"] for r in ours), theirs):
        boxes = expected["boxes"]
        real = (boxes[:, 2:] > boxes[:, :2]).all(1)
        assert real.sum() > 20
        assert not real.all()  # what has no size after clipping is reported, too
        assert mine.pred_classes.tolist() == expected["labels"].tolist()
        assert (mine.pred_boxes.tensor - boxes).abs().max() < 1e-3
        assert (mine.scores - expected["scores"]).abs().max() < 1e-6


# ------------------------------------------------------------------------------------------------ where theirs is wrong
def their_choice(peer: Peer, made: Scene, boxes: Tensor) -> set[int]:
    """Rows of the boxes that theirs trains on, each box having its row for a class: logits of those are pulled up."""
    p = made.predictions
    targets = [{"boxes": boxes, "labels": torch.arange(len(boxes))}, {"boxes": boxes[:0], "labels": torch.arange(0)}]
    loss = peer.compute_loss(targets, head_outputs(made), anchors_of(peer, made), sizes_of(made))["classification"]
    grads = reference.flatten(torch.autograd.grad(loss, p.logits), 1)
    return set((grads[0] < 0).any(0).nonzero().flatten().tolist())


def our_choice(made: Scene, boxes: Tensor) -> set[int]:
    assigner = PointAssigner(range_ends="open")
    image = torch.zeros(len(boxes), dtype=torch.int64)
    return set(assigner(made.predictions.locations, boxes, image, 1).flatten().tolist()) - {-1}


def test_areas_that_differ_by_less_than_eight(peer: Peer) -> None:
    """1e8 - area in float32 has steps of 8: the order of annotations decides there, the area here."""
    made = scene("none at all")
    small, large = [31.0, 31, 121, 120.96], [31.0, 30.985, 121, 120.975]  # 8,096.4 and 8,099.1 square pixels
    assert their_choice(peer, made, torch.tensor([small, large])) == {0}
    assert their_choice(peer, made, torch.tensor([large, small])) == {0}  # the larger box has it all
    assert our_choice(made, torch.tensor([small, large])) == {0}
    assert our_choice(made, torch.tensor([large, small])) == {1}


def test_boxes_over_a_hundred_million_square_pixels(peer: Peer) -> None:
    """1e8 - area is negative, and the box is lost."""
    made = scene("none at all")
    box = torch.tensor([[64 - 6000.0, 64 - 6000, 64 + 6000, 64 + 6000]])
    assert their_choice(peer, made, box) == set()
    assert our_choice(made, box) == {0}
