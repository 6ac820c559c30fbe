"""With `batch_invariant` an image has one result: alone, in any batch, on any canvas. Real images, a small ResNet.

Batches go through the network together, although the CPU would take their images one by one: what hides the padding is
what is tested, in float64 so that rounding decides nothing.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from detectron2.modeling import FPN
from detectron2.structures import Instances
from torch import Tensor

from fcos_d2.modeling import FCOS
from projects_tools.bench.peers import calibrated
from projects_tools.bench.workload import Setting

pytestmark = pytest.mark.slow

SIDES = (128, 144, 160, 176, 192)  # shorter side, pixels
BATCHES = 50
CANVASES = (64, 160, 256)  # sides are padded to a multiple of these, pixels


@pytest.fixture(scope="module")
def files(shared: Path) -> list[Path]:
    found = sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))
    if not found:
        pytest.skip("no images in data/coco/val2017 of the shared folder")
    return found


@pytest.fixture(scope="module")
def model() -> FCOS:
    """Random weights with scores as of a trained model: a thousand candidates an image are over the threshold."""
    model = calibrated("detectron2", Setting("forward", 1, 96, 128), backbone="R_18_slim_FPN").eval()
    model.batch_invariant, model.one_by_one = True, False
    return model


def read(file: Path) -> dict[str, Any]:
    """An image at a random size, as `DatasetMapper` gives it; boxes come in the network's pixels."""
    image = cv2.imread(str(file))
    scale = random.choice(SIDES) / min(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return {"image": torch.from_numpy(image).permute(2, 0, 1).contiguous()}


def rows(found: Instances) -> tuple[list[tuple[int, float, float]], Tensor]:
    """Class and location of each box, which name it, and (P, 5) boxes and scores, in the order of the names."""
    names = [(k, *xy) for k, xy in zip(found.pred_classes.tolist(), found.locations.tolist())]
    order = sorted(range(len(names)), key=names.__getitem__)
    values = torch.cat((found.pred_boxes.tensor, found.scores[:, None]), dim=1)
    return [names[i] for i in order], values[torch.tensor(order, dtype=torch.int64)]


def random_batches(files: list[Path], count: int) -> list[list[dict[str, Any]]]:
    return [[read(file) for file in random.sample(files, random.randint(2, 4))] for _ in range(count)]


def compared(model: FCOS, batch: list[dict[str, Any]]) -> tuple[float, float]:
    """Largest difference, in pixels and in score, between the images of a batch and each of them alone."""
    pairs = [(ours["instances"], model([x])[0]["instances"]) for ours, x in zip(model(batch), batch)]
    differences = [largest_difference(*pair) for pair in pairs]
    return max(pixel for pixel, _ in differences), max(score for _, score in differences)


def largest_difference(ours: Instances, theirs: Instances) -> tuple[float, float]:
    """In pixels and in score, of equal boxes."""
    (a, x), (b, y) = rows(ours), rows(theirs)
    assert a == b
    assert len(a) > 0
    difference = (x - y).abs()
    return float(difference[:, :4].max()), float(difference[:, 4].max())


@torch.inference_mode()
def test_random_batches(files: list[Path], model: FCOS) -> None:
    """The kept boxes are identical, to 1e-4 pixels and 1e-6 in score: logits and distances are float32 in the end."""
    model = model.double()
    try:
        differences = [compared(model, batch) for batch in random_batches(files, BATCHES)]
    finally:
        model.float()
    assert max(pixel for pixel, _ in differences) <= 1e-4
    assert max(score for _, score in differences) <= 1e-6


@torch.inference_mode()
def test_random_batches_in_float32(files: list[Path], model: FCOS) -> None:
    """Sums are rounded otherwise in another shape of map, by about 1e-6 of a feature.

    So boxes differ by 1e-5 of their sides (under 200 pixels), and what lies that near to a threshold of score or
    overlap is kept on one side alone: less than one box in a hundred.
    """
    lost = total = 0
    for batch in random_batches(files, BATCHES // 10):
        for ours, inputs in zip(model(batch), batch):
            (a, x), (b, y) = rows(ours["instances"]), rows(model([inputs])[0]["instances"])
            both = sorted(set(a) & set(b))
            lost, total = lost + len(set(a) ^ set(b)), total + len(both)
            x, y = x[[a.index(name) for name in both]], y[[b.index(name) for name in both]]
            assert float((x - y)[:, :4].abs().max()) <= 2e-2
            assert float((x - y)[:, 4].abs().max()) <= 1e-4
    assert lost < total / 100


@torch.inference_mode()
def test_the_company_counts_without_it(files: list[Path], model: FCOS, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail."""
    monkeypatch.setattr(FCOS, "batch_invariant", False)
    equal = 0
    for batch in random_batches(files, 3):
        for ours, inputs in zip(model(batch), batch):
            (a, x), (b, y) = rows(ours["instances"]), rows(model([inputs])[0]["instances"])
            equal += a == b and bool((x - y).abs().max() <= 1e-2)
    assert equal <= 3  # the largest of each batch


@torch.inference_mode()
def test_one_by_one_is_equal_to_the_bit(files: list[Path], model: FCOS, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CPU does unless told otherwise, on both sides of the switch."""
    batch = random_batches(files, 1)[0]
    alone = [model([inputs])[0]["instances"] for inputs in batch]
    for one_by_one, equal in ((None, True), (True, True), (False, False)):
        monkeypatch.setattr(model, "one_by_one", one_by_one)
        values = [(rows(a["instances"])[1], rows(b)[1]) for a, b in zip(model(batch), alone)]
        assert all(x.shape == y.shape and torch.equal(x, y) for x, y in values) is equal


@torch.inference_mode()
def test_any_canvas(files: list[Path], model: FCOS, monkeypatch: pytest.MonkeyPatch) -> None:
    """What masks do, without what rounding does: in float64, whatever an image is padded to."""
    model = model.double()
    try:
        for file in random.sample(files, 6):
            inputs = read(file)
            alone = model([inputs])[0]["instances"]
            for side in CANVASES:
                with monkeypatch.context() as patch:
                    patch.setattr(FPN, "size_divisibility", property(lambda self, side=side: side))
                    padded = model([inputs])[0]["instances"]
                pixel, score = largest_difference(padded, alone)
                assert pixel <= 1e-4
                assert score <= 1e-6
    finally:
        model.float()


@torch.inference_mode()
def test_the_canvas_counts_without_it(files: list[Path], model: FCOS, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail."""
    monkeypatch.setattr(model, "batch_invariant", False)
    inputs = read(files[0])
    alone = model([inputs])[0]["instances"]
    monkeypatch.setattr(FPN, "size_divisibility", property(lambda self: 256))
    padded = model([inputs])[0]["instances"]
    (ours, x), (theirs, y) = rows(padded), rows(alone)
    assert ours != theirs or float((x - y).abs().max()) > 1e-3
