"""A traced detector finds in another image of the traced size what the detector finds there, however many boxes."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from detectron2.structures import Boxes
from scenes import detector

from fcos_d2._compat import DETECTRON2_FLAVOUR

SIZE = (64, 96)

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:FutureWarning")


@pytest.fixture(scope="module")
def export() -> Any:
    """Detectron2's `TracingAdapter` and what flattens inputs; release v0.6 asks for Caffe2 before it lets them out."""
    name = "detectron2.export.api"
    stand_in = {} if DETECTRON2_FLAVOUR == "main" else {name: types.ModuleType(name)}
    with patch.dict(sys.modules, stand_in):
        from detectron2.export import flatten
    return flatten


def sure(recipe: str, **selector: Any) -> Any:
    torch.manual_seed(1)
    model = detector(recipe).eval()
    head = model.dense.head
    with torch.no_grad():
        for part, std, bias in ((head.cls_logits, 0.3, -2.0), (head.bbox_pred, 0.3, 1.5), (head.quality, 0.3, 1.0)):
            part.weight.normal_(std=std)
            part.bias.fill_(bias)
    model.dense.selector = replace(model.dense.selector, **selector)
    return model


def pictures(seed: int, count: int) -> list[dict[str, Any]]:
    """Noise."""
    generator = torch.Generator().manual_seed(seed)
    return [{"image": torch.rand(3, *SIZE, generator=generator) * 255} for _ in range(count)]


def assert_trace_follows(export: Any, model: Any, first: list, others: list[list]) -> list[int]:
    """The numbers of boxes that were found."""
    adapter = export.TracingAdapter(model, first)
    with pytest.warns(UserWarning, match=r"^A trace of FCOS is right for images of the traced size only \(96x64"):
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    counts = []
    for inputs in (first, *others):
        with torch.no_grad():
            eager = model(inputs)
            found = adapter.outputs_schema(traced(*export.flatten_to_tuple((inputs,))[0]))
        for expected, ours in zip(eager, found, strict=True):
            counts.append(len(expected["instances"]))
            assert tuple(map(int, ours["instances"].image_size)) == tuple(map(int, expected["instances"].image_size))
            for name, value in expected["instances"].get_fields().items():
                other = ours["instances"].get(name)
                one, other = (x.tensor if isinstance(x, Boxes) else x for x in (value, other))
                tolerance = 0 if name == "pred_classes" else 1e-5 * float(one.abs().amax()) if len(one) else 0
                assert one.shape == other.shape
                assert torch.allclose(one, other, rtol=0, atol=tolerance), name
    return counts


@pytest.mark.parametrize(
    ("recipe", "count", "selector"),
    [
        ("improved", 2, {"max_detections": 7}),
        ("detectron2", 1, {"topk": 30, "score_threshold": 0.5}),
        pytest.param("fad", 1, {"topk": 30}, marks=pytest.mark.slow),
    ],
)
def test_other_images(export: Any, recipe: str, count: int, selector: dict[str, Any]) -> None:
    first, *others = (pictures(seed, count) for seed in range(4))
    counts = assert_trace_follows(export, sure(recipe, **selector), first, others)
    assert set(counts) == {7} if recipe == "improved" else len(set(counts)) > 1


@pytest.mark.parametrize("first", [0, 3])
def test_from_boxes_to_none_and_back(export: Any, first: int) -> None:
    model = sure("torchvision")
    images = [pictures(seed, 1) for seed in range(4)]
    with torch.no_grad():
        best = [float(model(x)[0]["instances"].scores[0]) for x in images]
    order = sorted(range(4), key=lambda i: best[i])
    model = sure("torchvision", score_threshold=(best[order[1]] + best[order[2]]) / 2)
    ranked = [images[i] for i in order]
    counts = assert_trace_follows(export, model, ranked[first], ranked)[1:]
    assert counts[:2] == [0, 0] and min(counts[2:]) > 0


def test_the_wanted_size_may_be_an_input(export: Any) -> None:
    model = sure("original")
    first, second = (
        [{**pictures(seed, 1)[0], "height": torch.tensor(height), "width": torch.tensor(width)}]
        for seed, height, width in ((0, 128, 96), (1, 32, 64))
    )
    assert_trace_follows(export, model, first, [second])


def test_batch_invariant(export: Any) -> None:
    model = sure("improved")
    model.batch_invariant = True
    assert_trace_follows(export, model, pictures(0, 1), [pictures(1, 1)])
