"""Recording: it changes nothing, costs nothing where nobody asks, and replays to the bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import scenes
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fcos_d2.errors import FcosError
from fcos_d2.modeling import Selector
from fcos_d2.modeling.record import recording
from fcos_d2.structures import Detections

FIELDS = ("image", "boxes", "scores", "classes", "location")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Untrained, with scores on both sides of the threshold, so that there is much to select from."""
    torch.manual_seed(0)
    made: Any = scenes.detector(num_classes=3).eval()
    with torch.no_grad():
        made.dense.head.cls_logits.bias.copy_(torch.tensor([-2.6, -2.8, -3.0]))
        made.dense.head.cls_logits.weight.mul_(20)
        made.dense.head.bbox_pred.bias.fill_(1.5)
    return made


def inputs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Noise of three sizes, larger in the original."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [((64, 96), (96, 64), (80, 80))[i % 3] for i in range(count)]
    return [
        {"image": torch.randint(0, 256, (3, *size), generator=generator), "height": 2 * size[0], "width": 2 * size[1]}
        for size in sizes
    ]


def same(one: Detections, other: Detections) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def equal(one: list[dict], other: list[dict]) -> bool:
    pairs = [(x["instances"], y["instances"]) for x, y in zip(one, other, strict=True)]
    return all(
        torch.equal(x.pred_boxes.tensor, y.pred_boxes.tensor) and torch.equal(x.scores, y.scores)
        and torch.equal(x.pred_classes, y.pred_classes) for x, y in pairs
    )  # fmt: skip


@pytest.mark.parametrize("images", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_images_replay_to_the_bit(model: nn.Module, images: int) -> None:
    """What is selected from the record is what was reported, in pixels of the network input and of the image."""
    given, kept, suppressed = inputs(images), 0, 0
    with torch.inference_mode(), recording(model) as records:
        reported = [model([one])[0]["instances"] for one in given]
    assert len(records) == images
    for record, instances in zip(records, reported):
        again = record.replay()
        assert same(again, record.found)
        fates = record.fates
        assert same(fates.candidates[fates.kept], record.found)
        (shown,) = record.reported(again)
        assert torch.equal(shown.pred_boxes.tensor, instances.pred_boxes.tensor)
        assert torch.equal(shown.scores, instances.scores) and shown.image_size == instances.image_size
        kept, suppressed = kept + len(again), suppressed + int((fates.fate == 3).sum())
    assert kept > 10 * images and suppressed > 10 * images  # there was something to select


def test_batches_replay_to_the_bit(model: nn.Module) -> None:
    with torch.inference_mode(), recording(model) as records:
        reported = model(inputs(5, seed=1))
    (record,) = records
    assert len(record.image_sizes) == 5 and same(record.replay(), record.found)
    assert equal([{"instances": x} for x in record.reported(record.found)], reported)


def test_images_of_a_batch_that_are_taken_one_by_one(model: nn.Module) -> None:
    other: Any = scenes.detector(num_classes=3).eval()
    other.load_state_dict(model.state_dict())
    other.batch_invariant = True
    seen: list[tuple[int, int]] = []
    with torch.inference_mode(), recording(other) as records:
        other(inputs(3))
    assert [record.output_sizes for record in records] == [((128, 192),), ((192, 128),), ((160, 160),)]
    given = [{**one, "image_id": i} for i, one in enumerate(inputs(3))]
    with torch.inference_mode(), recording(other, lambda x, record, place: seen.append((x["image_id"], place))):
        other(given)
    assert seen == [(0, 0), (1, 0), (2, 0)]


def test_other_options_can_be_tried_on_a_record(model: nn.Module) -> None:
    with torch.inference_mode(), recording(model) as records:
        model(inputs(1))
    (record,) = records
    everything = {"max_detections": 100_000}
    full = len(record.replay(**everything))
    assert full > len(record.found)
    for options in ({"nms_threshold": 0.3}, {"score_threshold": 0.4}, {"topk": 3}):
        assert 0 < len(record.replay(**everything, **options)) < full
    assert len(record.replay(max_detections=2)) == 2
    with pytest.raises(ValueError, match="nms_threshold"):
        record.replay(nms_threshold=2)


class Calls(TorchDispatchMode):
    """The names of all operations, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module) -> list[str]:
    with torch.no_grad(), warnings.catch_warnings(), Calls() as calls:
        model(inputs(1))
    return calls.names


def test_it_costs_nothing_where_nobody_asks(model: nn.Module) -> None:
    """Before and after a recording the detector has its own selector, no hook, and does the same operations."""
    any_model: Any = model
    with torch.no_grad():
        plain = model(inputs(3))  # which also makes what is kept for images of these sizes
    own, before = any_model.dense.selector, operations(model)
    with torch.no_grad(), recording(model):
        assert any_model.dense.selector is not own
        recorded = model(inputs(3))
    assert equal(recorded, plain)
    assert any_model.dense.selector is own and type(own) is Selector
    assert not any_model._forward_hooks
    assert operations(model) == before


def test_an_error_leaves_the_detector_as_it_was(model: nn.Module) -> None:
    any_model: Any = model
    own = any_model.dense.selector
    with pytest.raises(ValueError, match="shape"), torch.no_grad(), recording(model):
        model([{"image": torch.zeros(3, 0, 4)}])
    assert any_model.dense.selector is own and not any_model._forward_hooks


@pytest.mark.parametrize("make", [lambda: nn.Linear(1, 1), lambda: scenes.dense_of("improved")])
def test_other_models_are_refused_in_a_sentence(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(FcosError, match="one-stage FCOS"), recording(make()):
        pass
