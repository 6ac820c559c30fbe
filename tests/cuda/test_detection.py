"""Detection on CUDA without a GPU: what the CPU finds, and few waits of the host, each of them with a reason."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scenes import detector, distinct, image_inputs, scene_of
from torch.utils._python_dispatch import TorchDispatchMode

from fcos_d2.modeling import FCOS
from fcos_d2.modeling.meta_arch import as_instances, as_reported
from fcos_d2.modeling.nms import grouped_nms
from fcos_d2.modeling.rewrite.fold import conv_norm
from fcos_d2.structures import Detections, Predictions
from projects_tools.bench.claimed_cuda import CUDA, ClaimedCuda
from projects_tools.bench.sync import Counted, counted, counted_on, table

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="asks PyTorch for a build with CUDA")

ROOT = Path(__file__).resolve().parents[2]
ROWS = "image", "boxes", "scores", "classes", "location"


def rows(found: Detections) -> dict[tuple[int, int, int], torch.Tensor]:
    """(image, location, class) -> score and box."""
    numbers = torch.cat((found.scores.unsqueeze(1), found.boxes), dim=1)
    keys = zip(found.image.tolist(), found.location.tolist(), found.classes.tolist())
    return dict(zip(keys, numbers))


def held(found: Detections) -> Detections:
    return Detections(*(getattr(found, f).held for f in ROWS))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"topk": 7, "max_detections": 9},
        {"nms_within": "level", "nms_threshold": 0.3},
        {"score_threshold": 0.0, "nms_threshold": 1.0},
    ],
)
@pytest.mark.parametrize("recipe", distinct("grid", "coder", "selector"))
def test_the_same_detections_as_on_the_cpu(recipe: str, options: dict[str, Any]) -> None:
    scene = scene_of(recipe)
    selector = replace(scene.dense.selector, **options)
    sizes = [(128, 160), (100, 150), (128, 90)]
    with torch.no_grad():
        expected = selector(scene.predictions, scene.dense.coder, sizes)
        with ClaimedCuda() as device:
            maps = [[device.sent(x) for x in getattr(scene.predictions, f)] for f in ("logits", "raw_ltrb", "quality")]
            at = scene.predictions.locations
            at = replace(at, xy=device.sent(at.xy), stride=device.sent(at.stride))
            found = selector(Predictions(*maps, at), scene.dense.coder, sizes)
            assert found.scores.device == CUDA
    ours, theirs = rows(held(found)), rows(expected)
    assert len(theirs) > 3 and ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-4) for key in ours)
    assert found.counts == torch.bincount(expected.image, minlength=3).tolist()
    assert all((held(found).scores[held(found).image == i].diff() <= 0).all() for i in range(3))
    assert {(wait.file, wait.operator) for wait in device.waits} <= {
        ("modeling/nms.py", "nms"), ("modeling/reserved.py", "_local_scalar_dense")
    }  # fmt: skip


@pytest.mark.parametrize("recipe", distinct("grid", "coder", "selector"))
def test_a_gpu_finds_what_the_cpu_finds(recipe: str, gpu: torch.device) -> None:
    scene = scene_of(recipe)
    maps = [[x.to(gpu) for x in getattr(scene.predictions, f)] for f in ("logits", "raw_ltrb", "quality")]
    at = scene.predictions.locations
    at = replace(at, xy=at.xy.to(gpu), stride=at.stride.to(gpu))
    sizes = [(128, 160), (100, 150), (128, 90)]
    with torch.no_grad():
        expected = scene.dense.selector(scene.predictions, scene.dense.coder, sizes)
        found = scene.dense.selector(Predictions(*maps, at), scene.dense.coder, sizes)
    ours, theirs = (rows(Detections(*(getattr(x, f).cpu() for f in ROWS))) for x in (found, expected))
    assert len(ours.keys() & theirs.keys()) >= 0.98 * len(theirs)  # a last bit may decide
    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-3) for key in ours.keys() & theirs.keys())


def generous(recipe: str) -> FCOS:
    """A detector without training that finds much all the same."""
    model: Any = detector(recipe).eval()
    model.dense.selector = replace(model.dense.selector, score_threshold=1e-4, max_detections=20)
    return model


@pytest.mark.parametrize(("recipe", "options"), [
    ("improved", {}), ("adelaidet", {"batch_invariant": True, "one_by_one": False}), ("torchvision", {}),
])  # fmt: skip
@pytest.mark.parametrize("batch", [1, 3])
def test_a_detector(recipe: str, options: dict[str, Any], batch: int) -> None:
    """In a batch and alone: a wait for each image, another where ties are kept, and one for all of them."""
    model = generous(recipe)
    for name, value in options.items():
        setattr(model, name, value)
    inputs = [image_inputs((64 + 32 * i, 96), height=100, width=120) for i in range(batch)]
    with torch.no_grad():
        expected = [x["instances"] for x in model(inputs)]
        with ClaimedCuda() as device:
            found = [x["instances"] for x in device.take(model)(inputs)]
    for ours, theirs in zip(found, expected):
        assert len(ours) == len(theirs) >= 10 and ours.image_size == theirs.image_size
        assert torch.allclose(ours.scores.held, theirs.scores, atol=1e-5)
        assert torch.allclose(ours.pred_boxes.tensor.held.sum(0), theirs.pred_boxes.tensor.sum(0), rtol=1e-3)
    waits = Counter(wait.operator for wait in device.waits)
    assert waits["nms"] == batch and waits.total() <= 2 * batch + 1
    assert {wait.file for wait in device.waits} <= {"modeling/nms.py", "modeling/reserved.py", "modeling/meta_arch.py"}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_optimized_detector(precision: str) -> None:
    """In the types of numbers that kernels of CUDA take."""
    inputs = [image_inputs((64, 96), height=100, width=120)]
    with ClaimedCuda() as device, torch.no_grad():
        (found,) = device.take(generous("improved")).optimize(precision)(inputs)
    assert len(found["instances"]) >= 10 and found["instances"].scores.dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_runs_an_optimized_detector(precision: str, gpu: torch.device) -> None:
    inputs = [image_inputs((64, 96), height=100, width=120)]
    model = generous("improved")
    with torch.no_grad():
        (expected,) = model(inputs)
        (found,) = model.to(gpu).optimize(precision)(inputs)
    there = expected["instances"].scores, found["instances"].scores.cpu()
    assert len(there[0]) == len(there[1]) >= 10
    assert torch.allclose(*there, atol=1e-4 if precision == "fp32" else 0.02)


@pytest.mark.parametrize("learns", [False, True])
def test_a_convolution_with_a_frozen_norm(learns: bool) -> None:
    """A GPU waits for the launch of kernels: where nothing is learned there is one for the norm, not six."""
    conv = conv_norm(8, 16, 3, "FrozenBN").requires_grad_(learns)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(conv.norm, name).uniform_(0.5, 1.5)
    x, launched = torch.randn(2, 8, 9, 7), []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            launched.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with torch.set_grad_enabled(learns), ClaimedCuda() as device:
        there, maps = device.take(copy.deepcopy(conv)), device.sent(x)
        with Seen():
            found = there(maps)
    assert torch.allclose(found.held, conv(x), atol=1e-5)
    assert ("rsqrt" in launched) == learns


def test_the_waits_on_a_gpu(gpu: torch.device) -> None:
    """They are as many as were counted without one."""
    _, seen = counted_on(gpu)
    expected: Counter[str] = Counter()
    for x in counted():
        expected[x.work] += x.times
    assert seen == expected


def test_boxes_without_area_are_dropped() -> None:
    """Of all images with one wait."""
    model: Any = detector("detectron2")
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 5, 9], [0, 5, 9, 5], [1, 1, 2, 2]])
    sizes = [(64, 96), (64, 90), (50, 60)]
    image = torch.tensor([0] * 4 + [2] * 4)
    found = Detections(image, boxes.repeat(2, 1), torch.rand(8), image, image, [4, 0, 4])
    with ClaimedCuda() as device:
        there = Detections(*(device.sent(getattr(found, f)) for f in ROWS), found.counts)
        in_each = as_instances(there, device.sent(torch.zeros(8, 2)), sizes)
        kept = as_reported(in_each, sizes, model.inclusive_far_corner, model.keep_empty)
        assert [x.pred_boxes.tensor.tolist() for x in kept] == [
            [[0, 0, 9, 9], [1, 1, 2, 2]],
            [],
            [[0, 0, 9, 9], [1, 1, 2, 2]],
        ]
    assert [(wait.function, wait.operator) for wait in device.waits[:1]] == [("with_area", "copy")]
    assert not [wait for wait in device.waits[1:] if wait.file]


def test_30000_boxes_are_one_suppression() -> None:
    """torchvision's `batched_nms` takes so many one group after the other, and waits for each."""
    corner = torch.rand(30_000, 2) * 4000
    boxes = torch.cat((corner, corner + torch.rand(30_000, 2) * 60), dim=1).double()
    scores, group = torch.rand(30_000).double(), torch.randint(0, 80, (30_000,))
    with ClaimedCuda() as device:
        kept = grouped_nms(*map(device.sent, (boxes, scores, group)), 0.6)
    assert [wait.operator for wait in device.waits] == ["nms"]
    assert torch.equal(kept.held, grouped_nms(boxes, scores, group, 0.6))


@pytest.mark.slow  # the waits of each work are counted above and in test_training.py
def test_the_list_of_waits_in_the_documentation() -> None:
    """It is what is counted, and each has its reason."""
    found = counted()
    assert all(isinstance(x, Counted) and x.reason for x in found)
    assert table(found) in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
