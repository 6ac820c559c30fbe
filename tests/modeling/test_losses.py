"""The losses: by hand, by law, and against the slow transcription under every option."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import reference
import torch
from scenes import Scene, dense_of, distinct, maps_of, relative, scene_of, total
from torch import Tensor

from fcos_d2.modeling import BOX_LOSS_REGISTRY, NORMALIZER_REGISTRY, FCOSLoss
from fcos_d2.modeling.losses import Counts
from fcos_d2.modeling.ltrb import IOU_RULES
from fcos_d2.structures import Targets
from fcos_d2.zoo.recipes import RECIPES

BOX_LOSSES = ("iou", "linear_iou", "giou", "diou", "ciou")
NORMALIZERS = (
    "positives",
    "positives_and_images",
    "mean_positives",
    "moving_positives",
    "moving_mean_positives",
    "locations",
    "weights",
    "mean_weights",
)


def corners(ltrb: Tensor) -> Tensor:
    return ltrb * ltrb.new_tensor([-1, -1, 1, 1])


def box_loss(name: str, pred: Any, target: Any, rule: str) -> Tensor:
    pred, target = (torch.as_tensor(v, dtype=torch.float32) for v in (pred, target))
    return BOX_LOSS_REGISTRY.get(name)(pred, target, IOU_RULES[rule])


# ----------------------------------------------------------------------------------------------------------- box losses
@pytest.mark.parametrize(
    ("name", "rule", "expected"),
    [
        # Sides of 0.75 in sides of 1, in strides: the overlap is 0.5625, or (0.5625 + 1) / (1 + 1).
        ("iou", "plus_one", -math.log(0.78125)),
        ("iou", "plus_one_exact", -math.log(0.78125)),
        ("iou", "eps", -math.log(0.5625)),
        ("iou", "floor", -math.log(0.5625)),
        ("linear_iou", "plus_one", 1 - 0.78125),
        ("linear_iou", "floor", 1 - 0.5625),
        ("giou", "plus_one_exact", 1 - 0.78125),  # the target encloses the prediction: no penalty
        ("giou", "eps", 1 - 0.5625),
    ],
)
def test_a_centred_prediction_by_hand(name: str, rule: str, expected: float) -> None:
    loss = box_loss(name, [[0.375] * 4], [[0.5] * 4], rule)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_iou", 1 - 0.5),
        ("giou", 1 - 0.5),
        ("diou", 1 - (0.5 - 4 / 80)),
        ("ciou", 1 - (0.45 - 0.0032482)),
    ],
)
def test_a_half_by_hand(name: str, expected: float) -> None:
    """4 x 4 in 8 x 4: overlap 1/2, centres 2 apart, diagonal squared 80, angles atan 2 and atan 1."""
    assert box_loss(name, [[2, 2, 2, 2]], [[2, 2, 6, 2]], "floor").item() == pytest.approx(expected, abs=1e-6)


def test_a_cross_by_hand() -> None:
    """2 x 10 and 10 x 2: intersection 4, union 36, enclosing area 100."""
    pred, target = [[1, 5, 1, 5]], [[5, 1, 5, 1]]
    assert box_loss("giou", pred, target, "floor").item() == pytest.approx(1 - (4 / 36 - 64 / 100), abs=1e-6)
    assert box_loss("giou", pred, target, "plus_one_exact").item() == pytest.approx(1 - (5 / 37 - 64 / 100), abs=1e-6)
    assert box_loss("diou", pred, target, "floor").item() == pytest.approx(1 - 4 / 36, abs=1e-6)


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize("rule", IOU_RULES)
def test_equal_to_the_corner_formulas(name: str, rule: str) -> None:
    pred = (torch.rand(300, 4) * 8 + 0.05).requires_grad_()
    target = torch.rand(300, 4) * 8 + 0.05
    ours = box_loss(name, pred, target, rule)
    (grad,) = torch.autograd.grad(ours.sum(), pred)
    exact = pred.detach().double().requires_grad_()
    slow = reference.box_loss(name, corners(exact), corners(target.double()), rule)
    (slow_grad,) = torch.autograd.grad(slow.sum(), exact)
    assert torch.allclose(ours.double(), slow, atol=2e-6)
    assert relative(grad, slow_grad) < 1e-5


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize("rule", IOU_RULES)
def test_box_loss_laws(name: str, rule: str) -> None:
    pred, target = torch.rand(300, 4) * 8 + 0.05, torch.rand(300, 4) * 8 + 0.05
    loss = box_loss(name, pred, target, rule)
    most = {"iou": math.inf, "linear_iou": 1, "giou": 2, "diou": 2, "ciou": math.inf}[name]
    assert ((loss > 0) & (loss < most)).all()
    perfect = box_loss(name, target, target, rule)
    assert perfect.abs().max() < 2e-5
    if rule == "plus_one_exact":
        assert (perfect == 0).all()
    mirrored = box_loss(name, pred[:, [2, 1, 0, 3]], target[:, [2, 1, 0, 3]], rule)
    assert torch.allclose(mirrored, loss, atol=1e-6)
    if name != "ciou":
        assert torch.allclose(box_loss(name, target, pred, rule), loss, atol=1e-6)
    assert box_loss(name, torch.empty(0, 4), torch.empty(0, 4), rule).shape == (0,)


@pytest.mark.parametrize("name", BOX_LOSSES)
@pytest.mark.parametrize("rule", IOU_RULES)
def test_a_prediction_of_no_size(name: str, rule: str) -> None:
    """relu often gives distances of 0. Only -log of an overlap that nothing keeps from 0 is infinite there."""
    pred = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 3, 3]], requires_grad=True)
    target = torch.rand(3, 4) + 0.5
    loss = box_loss(name, pred, target, rule)
    if (name, rule) == ("iou", "eps"):
        assert loss[:2].isinf().all()
        loss = box_loss(name, pred[2:], target[2:], rule)
    assert loss.isfinite().all()
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    assert grad.isfinite().all()


def test_registered_names() -> None:
    assert {name for name, _ in BOX_LOSS_REGISTRY} >= set(BOX_LOSSES)
    assert {name for name, _ in NORMALIZER_REGISTRY} >= set(NORMALIZERS)


# ---------------------------------------------------------------------------------------------------------- normalizers
@pytest.mark.parametrize(
    ("name", "expected", "when_empty"),
    [
        ("positives", 6, 1),
        ("positives_and_images", 8, 2),
        ("mean_positives", 4, 1),
        ("weights", 3, 1e-6),
        ("mean_weights", 2.5, 1e-6),
        ("locations", 200, 200),
        ("moving_positives", 90, 90),
        ("moving_mean_positives", 90, 90),
    ],
)
def test_normalizers_by_hand(name: str, expected: float, when_empty: float) -> None:
    """Two images of 100 locations on each of two workers, of which this one has 6 positives and the other 2."""
    divide_by = NORMALIZER_REGISTRY.get(name)
    numbers = {"images": 2, "locations": 200, "average": torch.tensor(90.0)}
    counts = Counts(*map(torch.tensor, (6.0, 3.0, 4.0, 2.5)), **numbers)
    assert divide_by(counts).item() == pytest.approx(expected)
    nothing = Counts(*[torch.tensor(0.0)] * 4, **numbers)
    assert divide_by(nothing).item() == pytest.approx(when_empty)


def test_the_moving_average_belongs_to_the_state() -> None:
    scene = scene_of("detectron2", counts=(4, 4))
    loss = scene.dense.loss
    count = len(scene.dense.targets(scene.predictions.locations, scene.ground_truth).positives)
    assert loss.state_dict()["average"] == 300
    scene.dense.losses(scene.predictions, scene.ground_truth)
    after = 300 * 0.9 + count * 0.1
    assert loss.state_dict()["average"].item() == pytest.approx(after, rel=1e-6)
    resumed = FCOSLoss(**RECIPES["detectron2"].loss)
    resumed.load_state_dict(loss.state_dict())
    scene.dense.loss = resumed
    scene.dense.losses(scene.predictions, scene.ground_truth)
    assert resumed.average.item() == pytest.approx(after * 0.9 + count * 0.1, rel=1e-6)


def test_the_moving_average_counts_an_empty_batch_as_one() -> None:
    scene = scene_of("detectron2", counts=(0, 0))
    scene.dense.losses(scene.predictions, scene.ground_truth)
    assert scene.dense.loss.average.item() == pytest.approx(300 * 0.9 + 0.1)


def test_without_a_moving_normalizer_there_is_no_state() -> None:
    assert not FCOSLoss().state_dict()


def test_an_average_once_used_does_not_change() -> None:
    """The second batch of a step must not alter the divisor of the first before its backward."""
    scene = scene_of("detectron2", counts=(3, 2))
    first = scene.dense.losses(scene.predictions, scene.ground_truth)
    alone = torch.autograd.grad(total(first), scene.predictions.raw_ltrb, retain_graph=True)
    scene.dense.losses(scene.predictions, scene.ground_truth)
    again = torch.autograd.grad(total(first), scene.predictions.raw_ltrb)
    assert all(torch.equal(a, b) for a, b in zip(alone, again))


# -------------------------------------------------------------------------------------- all options, against the paper
def compare(scene: Scene, recipe: Any) -> None:
    """Losses and their gradients at the head outputs are those of the transcription."""
    names = {"class": "loss_fcos_cls", "box": "loss_fcos_loc", "quality": scene.dense.loss.quality_loss_name}
    ours = scene.dense.losses(scene.predictions, scene.ground_truth)
    slow = reference.fcos_losses(
        **scene.for_reference,
        boxes=[b.numpy() for b in scene.boxes],
        classes=[c.tolist() for c in scene.classes],
        parts=recipe,
    )
    assert list(ours) == list(names.values())
    for key, name in names.items():
        assert ours[name].dtype == torch.float32
        assert ours[name].item() == pytest.approx(slow[key].item(), rel=1e-5, abs=1e-9)
    maps = maps_of(scene.predictions)
    for key, name in names.items():
        if slow[key].item():
            grads = [
                torch.autograd.grad(v, maps, retain_graph=True, allow_unused=True) for v in (ours[name], slow[key])
            ]
            ours_grads, slow_grads = ([torch.zeros_like(m) if g is None else g for g, m in zip(v, maps)] for v in grads)
            assert relative(ours_grads, slow_grads) < 1e-5
    if scene.dense.loss.average is not None:
        assert scene.dense.loss.average.item() == pytest.approx(slow["average"].item(), rel=1e-6)


OPTIONS: list[dict[str, Any]] = [
    *(
        {"box_loss": name, "iou_rule": rule}
        for name in BOX_LOSSES
        for rule in IOU_RULES
        if (name, rule) != ("iou", "eps")
    ),
    *({"box_weight": "none", "box_loss": name} for name in BOX_LOSSES),
    *({"quality": "iou", "iou_rule": rule} for rule in IOU_RULES),
    *({f"{loss}_normalizer": name} for loss in ("class", "box", "quality") for name in NORMALIZERS),
    {"focal_alpha": 0.6, "focal_gamma": 1.0},
    {"focal_gamma": 0.0},
    {"class_weight": 2.0, "box_loss_weight": 3.0, "quality_weight": 0.5},
    {"class_normalizer": "moving_mean_positives", "moving_start": 7.0, "moving_momentum": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_every_option(options: dict[str, Any]) -> None:
    recipe = RECIPES["adelaidet"].derived("trial", "this test", loss=options)
    compare(scene_of(recipe, counts=(3, 0, 6), image_size=(64, 96)), recipe)


@pytest.mark.parametrize("counts", [(5, 0, 12), (0, 0), (1,), (40,)], ids=str)
@pytest.mark.parametrize("name", distinct("grid", "assigner", "coder", "loss"))
def test_every_recipe(name: str, counts: tuple[int, ...]) -> None:
    compare(scene_of(name, counts, image_size=(96, 160)), RECIPES[name])


@pytest.mark.parametrize("points", [4, 5])
def test_dense_points(points: int) -> None:
    recipe = RECIPES["fcos_plus_center"].derived("trial", "this test", grid={"points_per_cell": points})
    compare(scene_of(recipe, counts=(4, 3), image_size=(64, 96)), recipe)


def test_no_loss_at_a_perfect_prediction() -> None:
    """Boxes exactly right: GIoU's loss is exactly 0, and certain and right classes cost nothing."""
    scene = scene_of("adelaidet", counts=(3, 2))
    targets = scene.dense.targets(scene.predictions.locations, scene.ground_truth)
    losses = scene.dense.loss(scene.predictions, targets, targets.ltrb)
    assert losses["loss_fcos_loc"] == 0
    certain = scene.predictions
    for values in certain.logits:
        values.requires_grad_(False).fill_(-20.0)
    for i, r, label in zip(targets.positives.image, targets.positives.location, targets.label):
        level = next(v for v in certain.locations.levels if r < v.end)
        row, column = divmod(int(r) - level.start, level.width)
        certain.logits[certain.locations.levels.index(level)][i, label, row, column] = 20.0
    # Positives are counted as negatives first and taken back: of some 15 for each, float32's last digits may be left.
    assert scene.dense.loss(certain, targets, targets.ltrb)["loss_fcos_cls"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("centerness", "loss_fcos_ctr"), ("iou", "loss_fcos_iou")])
def test_published_names(kind: str, name: str) -> None:
    scene = scene_of(RECIPES["adelaidet"].derived("trial", "this test", loss={"quality": kind}), counts=(2,))
    losses = scene.dense.losses(scene.predictions, scene.ground_truth)
    assert list(losses) == ["loss_fcos_cls", "loss_fcos_loc", name]


def test_without_a_quality_branch() -> None:
    """The other two losses are those of a head whose branch nobody asks."""
    options = {"box_weight": "none", "box_normalizer": "mean_positives"}
    with_branch = RECIPES["adelaidet"].derived("trial", "this test", loss=options)
    without = with_branch.derived("trial", "this test", head={"quality_on": "none"}, loss={"quality": "none"})
    scene = scene_of(with_branch, counts=(3, 0, 4))
    expected = scene.dense.losses(scene.predictions, scene.ground_truth)
    scene.dense = dense_of(without)
    found = scene.dense.losses(scene.predictions, scene.ground_truth)
    assert list(found) == ["loss_fcos_cls", "loss_fcos_loc"]
    assert all(torch.equal(found[name], expected[name]) for name in found)
    with pytest.raises(ValueError, match="both are 'none'"):
        dense_of(with_branch.derived("trial", "this test", loss={"quality": "none"}))


def test_quality_and_weights_get_no_gradient_through_their_targets() -> None:
    """The IoU target follows the prediction, but the prediction is not drawn towards a target that suits it."""
    scene = scene_of("adelaidet_iou", counts=(5,))
    losses = scene.dense.losses(scene.predictions, scene.ground_truth)
    grads = torch.autograd.grad(losses["loss_fcos_iou"], scene.predictions.raw_ltrb, allow_unused=True)
    assert all(g is None for g in grads)


def test_targets_by_hand() -> None:
    """One box of 16 x 16 around the location (12, 12), class 2, on one level of stride 8."""
    scene = scene_of(
        RECIPES["adelaidet"].derived(
            "trial", "this test", assigner={"size_ranges": ((-1.0, math.inf),), "center_radius": 0.4}, features=("p3",)
        ),
        counts=(1,),
        image_size=(24, 24),
    )
    scene.boxes, scene.classes = [torch.tensor([[6.0, 4, 22, 20]])], [torch.tensor([2])]
    targets = scene.dense.targets(scene.predictions.locations, scene.ground_truth)
    assert isinstance(targets, Targets)
    assert targets.positives.location.tolist() == [4]
    assert targets.label.tolist() == [2]
    assert targets.ltrb.tolist() == [[0.75, 1.0, 1.25, 1.0]]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("box_loss", "l1", "'iou', 'linear_iou', 'giou', 'diou', 'ciou'"),
        ("iou_rule", "plus_two", "'plus_one', 'plus_one_exact', 'eps', 'floor'"),
        ("box_weight", "iou", "'centerness', 'none'"),
        ("quality", "ctrness", "'centerness', 'iou', 'none'"),
        ("class_normalizer", "sum", "'positives', 'positives_and_images'"),
        ("box_normalizer", "fg", "'positives', 'positives_and_images'"),
        ("quality_normalizer", "", "'positives', 'positives_and_images'"),
    ],
)
def test_wrong_options(field: str, value: str, allowed: str) -> None:
    message = f"FCOSLoss.{field} is {value!r}, but it must be one of: {allowed}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        FCOSLoss(**{field: value})
