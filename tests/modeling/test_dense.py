"""DenseFCOS joins the parts; here also the way positives are gathered on the GPU, which works on the CPU as well."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scenes import Scene, dense_of, distinct, feature_sizes, maps_of, relative, scene_of, strides_of, total

from fcos_d2.modeling import DenseFCOS, LocationGrid
from fcos_d2.modeling.ltrb import IOU_RULES
from fcos_d2.structures import Locations, Predictions
from fcos_d2.zoo.recipes import RECIPES


def with_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reserve rows for positives beforehand, as on the GPU."""

    def bound(locations: Locations, truth: Any) -> int:
        return scene.dense.assigner.max_positives(locations, len(truth.boxes), truth.num_images)

    monkeypatch.setattr(scene.dense, "_bound", bound)


def losses_and_gradients(scene: Scene) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    losses = scene.dense.losses(scene.predictions, scene.ground_truth)
    return losses, list(torch.autograd.grad(total(losses), maps_of(scene.predictions)))


@pytest.mark.parametrize("counts", [(5, 0, 12), (0, 0), (40,)], ids=str)
@pytest.mark.parametrize("name", distinct("grid", "assigner", "coder", "loss"))
def test_padded_positives_give_the_same(name: str, counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(name, counts, image_size=(96, 160))
    counted, counted_grads = losses_and_gradients(scene)
    if scene.dense.loss.average is not None:  # one step, twice
        scene.dense.loss.average.fill_(300.0)
    with_bound(scene, monkeypatch)
    padded, padded_grads = losses_and_gradients(scene)
    assert list(padded) == list(counted)
    for key, value in counted.items():
        assert padded[key].item() == pytest.approx(value.item(), rel=1e-6)
    assert relative(padded_grads, counted_grads) < 1e-6


@pytest.mark.parametrize("rule", IOU_RULES)
@pytest.mark.parametrize("box_loss", ["iou", "linear_iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("activation", ["exp", "relu"])
def test_padding_is_harmless_whatever_location_0_predicts(
    activation: str, box_loss: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding rows stand at location 0 of image 0, where the prediction may have no size, or a size beyond float32."""
    recipe = RECIPES["adelaidet"].derived(
        "trial", "this test", coder={"activation": activation}, loss={"box_loss": box_loss, "iou_rule": rule}
    )
    scene = scene_of(recipe, counts=(1, 2), image_size=(64, 64))
    scene.boxes = [torch.tensor([[30.0, 30, 50, 50]]), torch.tensor([[20.0, 20, 34, 44], [2, 2, 60, 60]])]
    with torch.no_grad():
        for values in scene.predictions.raw_ltrb:
            values.clamp_(min=0.1, max=3)
        scene.predictions.raw_ltrb[0][0, :, 0, 0] = 200.0 if activation == "exp" else -1.0
    counted, counted_grads = losses_and_gradients(scene)
    with_bound(scene, monkeypatch)
    padded, padded_grads = losses_and_gradients(scene)
    assert total(counted).isfinite()
    assert total(padded).item() == pytest.approx(total(counted).item(), rel=1e-6)
    assert relative(padded_grads, counted_grads) < 1e-6


def test_positives_and_their_padding() -> None:
    index = torch.tensor([[-1, 4, -1], [0, -1, 2]])
    counted = DenseFCOS._positives(index, None)
    assert counted.valid is None
    assert (counted.image.tolist(), counted.location.tolist(), counted.box.tolist()) == (
        [0, 1, 1],
        [1, 0, 2],
        [4, 0, 2],
    )
    padded = DenseFCOS._positives(index, 5)
    assert padded.valid.tolist() == [1, 1, 1, 0, 0]
    assert padded.image.tolist() == [0, 1, 1, 0, 0]
    assert padded.location.tolist() == [1, 0, 2, 0, 0]
    assert padded.box.tolist() == [4, 0, 2, 0, 0]
    assert counted.count == padded.count == 3


def test_without_boxes_there_is_no_bound_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """No box, no row: nothing is looked up in the empty list of boxes."""
    scene = scene_of("improved", counts=(0, 0))
    with_bound(scene, monkeypatch)
    targets = scene.dense.targets(scene.predictions.locations, scene.ground_truth)
    assert len(targets.positives) == len(targets.label) == 0
    assert targets.ltrb.shape == (0, 4)


@pytest.mark.parametrize("name", distinct("head_name", "head", "features"))
def test_forward(name: str) -> None:
    dense = dense_of(name, num_classes=5)
    strides = strides_of(RECIPES[name])
    sizes = feature_sizes((96, 160), strides)
    predictions = dense([torch.randn(2, 32, *s) for s in sizes], strides, (96, 160))
    assert [tuple(v.shape) for v in predictions.logits] == [(2, 5, *s) for s in sizes]
    assert [tuple(v.shape) for v in predictions.raw_ltrb] == [(2, 4, *s) for s in sizes]
    assert [tuple(v.shape) for v in predictions.quality] == [(2, 1, *s) for s in sizes]
    assert [level.stride for level in predictions.locations.levels] == list(strides)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["original", "improved", "adelaidet_iou", "detectron2"])
def test_losses_of_half_precision_maps(name: str, dtype: torch.dtype) -> None:
    """Losses and gradients are those of the rounded maps in float32, also inside autocast."""
    scene = scene_of(name)
    p = scene.predictions
    halves = [[v.detach().to(dtype).requires_grad_() for v in maps] for maps in (p.logits, p.raw_ltrb, p.quality)]
    floats = [[v.detach().float().requires_grad_() for v in maps] for maps in halves]
    results = []
    for maps in (halves, floats):
        if scene.dense.loss.average is not None:
            scene.dense.loss.average.fill_(300.0)
        scene.predictions = Predictions(*maps, p.locations)
        with torch.autocast("cpu", torch.bfloat16, enabled=maps is halves):
            losses = scene.dense.losses(scene.predictions, scene.ground_truth)
        results.append((losses, torch.autograd.grad(total(losses), [v for values in maps for v in values])))
    (half, half_grads), (full, full_grads) = results
    for key, value in full.items():
        assert half[key].dtype == torch.float32
        assert half[key].item() == pytest.approx(value.item(), rel=1e-6)
    assert all(g.dtype == dtype for g in half_grads)
    assert relative(half_grads, full_grads) < (1e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_losses_of_maps_in_another_layout(layout: str) -> None:
    def lay(values: torch.Tensor) -> torch.Tensor:
        if layout == "channels_last":
            return values.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        return values.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()

    scene = scene_of("improved")
    plain, plain_grads = losses_and_gradients(scene)
    p = scene.predictions
    maps = [[lay(v) for v in values] for values in (p.logits, p.raw_ltrb, p.quality)]
    scene.predictions = Predictions(*maps, p.locations)
    other, other_grads = losses_and_gradients(scene)
    assert total(other).item() == pytest.approx(total(plain).item(), rel=1e-6)
    assert relative(other_grads, plain_grads) < 1e-6


def test_permuted_annotations_give_the_same_losses() -> None:
    scene = scene_of("improved", counts=(12, 7))
    before, before_grads = losses_and_gradients(scene)
    for i, boxes in enumerate(scene.boxes):
        order = torch.randperm(len(boxes))
        scene.boxes[i], scene.classes[i] = boxes[order], scene.classes[i][order]
    after, after_grads = losses_and_gradients(scene)
    assert total(after).item() == pytest.approx(total(before).item(), rel=1e-6)
    assert relative(after_grads, before_grads) < 1e-6


def test_another_selector_for_once() -> None:
    scene = scene_of("improved")
    few = type(scene.dense.selector)(max_detections=2)
    sizes = [scene.image_size] * 3
    assert len(scene.dense.detect(scene.predictions, sizes)) > 6
    assert len(scene.dense.detect(scene.predictions, sizes, few)) == 6


def test_detections_carry_no_gradient() -> None:
    scene = scene_of("improved")
    found = scene.dense.detect(scene.predictions, [scene.image_size] * 3)
    assert not found.boxes.requires_grad
    assert not found.scores.requires_grad


def test_points_of_head_and_grid_must_agree() -> None:
    dense = dense_of("improved")
    with pytest.raises(
        ValueError, match=r"^The head predicts 1 points for each cell, but the location grid has 4: set"
    ):
        DenseFCOS(
            head=dense.head,
            loss=dense.loss,
            assigner=dense.assigner,
            coder=dense.coder,
            selector=dense.selector,
            grid=LocationGrid(points_per_cell=4),
        )


def test_size_ranges_must_suit_the_levels() -> None:
    scene = scene_of("improved")
    scene.dense.assigner = type(scene.dense.assigner)(size_ranges=((-1, 64),))
    with pytest.raises(ValueError, match="PointAssigner has 1 size ranges, but the head predicts on 5 levels"):
        scene.dense.losses(scene.predictions, scene.ground_truth)
