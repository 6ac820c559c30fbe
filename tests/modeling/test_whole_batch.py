"""A batch computed in parts gives the losses and gradients of the whole, whatever its losses are divided by."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scenes import image_inputs, random_boxes, relative, thin, total
from torch import nn

from fcos_d2.modeling import NORMALIZER_REGISTRY
from fcos_d2.modeling.whole_batch import padded_size
from fcos_d2.train.settings import without_denormals
from fcos_d2.zoo.recipes import RECIPES

SIZES = {"equal": [(64, 96)] * 4, "different": [(64, 96), (96, 64), (40, 70), (64, 64)]}
BOXES = (5, 0, 9, 2)
# Those that divide by something else, weight boxes, or look at predictions; the others differ in the rest alone.
PUBLISHED = ("original", "adelaidet_iou", "fcos_plus", "mmdet", "torchvision", "detectron2")


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    """A loss over all locations has gradients that fade into denormal numbers."""
    with without_denormals():
        yield


def batch_of(sizes: str) -> list[dict[str, Any]]:
    return [
        image_inputs(size, random_boxes(n, size), torch.randint(0, 3, (n,))) for size, n in zip(SIZES[sizes], BOXES)
    ]


@functools.cache
def _built(recipe: str) -> nn.Module:
    torch.manual_seed(3)
    return thin(recipe).train()  # without batch norm, which would see another batch


def model_of(recipe: str, normalizers: str | None = None) -> nn.Module:
    model = copy.deepcopy(_built(recipe))
    if normalizers:
        options = {f"{kind}_normalizer": normalizers for kind in ("class", "box", "quality")}
        model.dense.loss = type(model.dense.loss)(**{**RECIPES[recipe].loss, **options})
    return model


def in_parts(model: nn.Module, batch: list[dict[str, Any]], parts: int) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Sums of the losses, and the gradients."""
    whole = model.whole_batch(batch)
    sums: dict[str, float] = {}
    step = len(batch) // parts
    for start in range(0, len(batch), step):
        losses = model(batch[start : start + step], whole=whole) if parts > 1 else model(batch)
        total(losses).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return sums, [p.grad for p in model.parameters() if p.grad is not None]


def compare(recipe: str, sizes: str, normalizers: str | None, parts: int, dtype: torch.dtype = torch.float32) -> None:
    batch = batch_of(sizes)
    one, several = (model_of(recipe, normalizers).to(dtype) for _ in range(2))
    losses, gradients = in_parts(one, batch, 1)
    sums, added = in_parts(several, batch, parts)
    assert sums == pytest.approx(losses, rel=1e-5)
    assert len(added) == len(gradients) == len(list(one.parameters()))
    assert relative(added, gradients) < 1e-5
    if one.dense.loss.average is not None:
        assert several.dense.loss.average.item() == one.dense.loss.average.item() != 0


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("normalizers", [name for name, _ in NORMALIZER_REGISTRY])
def test_every_normalizer(normalizers: str, sizes: str) -> None:
    compare("improved", sizes, normalizers, 2)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_every_kind_of_recipe(recipe: str) -> None:
    """In double precision: a single image is convolved in another order, and rounding may switch a ReLU."""
    compare(recipe, "different", None, 4, torch.float64)


def test_without_the_whole_batch_it_is_another_gradient() -> None:
    """So the tests above can fail."""
    batch = batch_of("different")
    one, several = model_of("improved"), model_of("improved")
    _, gradients = in_parts(one, batch, 1)
    for part in (batch[:2], batch[2:]):
        (total(several(part)) / 2).backward()
    assert relative([p.grad for p in several.parameters() if p.grad is not None], gradients) > 0.01


def test_the_moving_average_takes_one_step_a_batch() -> None:
    model, batch = model_of("detectron2"), batch_of("equal")
    before = model.dense.loss.average.item()
    whole = model.whole_batch(batch)
    assert whole.counts is None
    for image in batch:
        model([image], whole=whole)
    positives = whole.counts.positives.item()
    assert positives > 10 and whole.counts.images == 4
    assert model.dense.loss.average.item() == pytest.approx(0.9 * before + 0.1 * positives)


@pytest.mark.parametrize("sizes", SIZES)
def test_padded_size_is_that_of_the_batch(sizes: str) -> None:
    model, batch = model_of("improved"), batch_of(sizes)
    size = padded_size(batch, model.backbone)
    assert size == tuple(model.preprocess_image(batch).tensor.shape[-2:])
    images = model.preprocess_image(batch[2:3])
    padded = model.whole_batch(batch).pad(images)
    assert tuple(padded.tensor.shape[-2:]) == size and padded.image_sizes == images.image_sizes
    height, width = images.tensor.shape[-2:]
    assert torch.equal(padded.tensor[..., :height, :width], images.tensor)
    assert padded.tensor.count_nonzero() == images.tensor.count_nonzero()


def test_a_loss_that_cannot_count_has_no_whole_batch() -> None:
    class Plain(nn.Module):
        def forward(self, predictions: Any, targets: Any, pred_ltrb: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": pred_ltrb.sum()}

    model = model_of("improved")
    model.dense.loss = Plain()
    batch = batch_of("equal")
    assert model.whole_batch(batch) is None
    assert model(batch)["loss"].isfinite()


def test_a_bad_image_of_the_batch_is_named() -> None:
    model, batch = model_of("improved"), batch_of("equal")
    batch[3]["instances"].gt_classes[0] = 7
    with pytest.raises(ValueError, match="image 3 of the batch has the class index 7"):
        model.whole_batch(batch)
