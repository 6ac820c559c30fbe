"""Losses on CUDA without a GPU: all levels at once, in few operators, since each of them is a kernel to start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scenes import Scene, maps_of, relative, scene_of, total
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fcos_d2.structures import GroundTruth, Locations, Predictions
from fcos_d2.zoo.recipes import RECIPES
from projects_tools.bench.claimed_cuda import ClaimedCuda

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="asks PyTorch for a build with CUDA")

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "neither": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


def laid(scene: Scene, layout: str, dtype: torch.dtype) -> None:
    """The maps of a scene in another layout and type, as leaves."""
    for maps in (scene.predictions.logits, scene.predictions.raw_ltrb, scene.predictions.quality):
        maps[:] = [LAYOUTS[layout](x.detach()).to(dtype).requires_grad_() for x in maps]


def sent(device: ClaimedCuda, scene: Scene) -> tuple[Predictions, GroundTruth]:
    """The maps, locations and boxes of a scene on the device."""
    of, truth = scene.predictions, scene.ground_truth
    at = Locations(of.locations.levels, device.sent(of.locations.xy), device.sent(of.locations.stride))
    maps = [[device.sent(x.detach()).requires_grad_() for x in y] for y in (of.logits, of.raw_ltrb, of.quality)]
    boxes = (device.sent(x) for x in (truth.boxes, truth.classes, truth.image))
    return Predictions(*maps, at), GroundTruth(*boxes, truth.num_images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("points", [1, 4])
def test_losses_and_gradients_are_those_of_the_cpu(points: int, layout: str, dtype: torch.dtype) -> None:
    scene = scene_of(replace(RECIPES["improved"], grid={"points_per_cell": points}))
    laid(scene, layout, dtype)
    expected = scene.dense.losses(scene.predictions, scene.ground_truth)
    total(expected).backward()
    with ClaimedCuda() as device:
        dense, (predictions, truth) = device.take(scene.dense), sent(device, scene)
        losses = dense.losses(predictions, truth)
        torch.autograd.backward(total(losses))
    assert device.waits == []
    assert {k: v.held.item() for k, v in losses.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-5
    )
    ours, theirs = maps_of(predictions), maps_of(scene.predictions)
    assert all(x.grad.dtype == dtype and x.grad.held.shape == y.shape for x, y in zip(ours, theirs))
    grads = [x.grad.held for x in ours]
    assert relative(grads, [x.grad for x in theirs]) < (1e-5 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("points", [1, 4, 5])
def test_gather_reads_what_it_reads_on_the_cpu(points: int, layout: str) -> None:
    """To the last bit, at each location of each map."""
    scene = scene_of(replace(RECIPES["improved"], grid={"points_per_cell": points}), counts=(1, 2))
    laid(scene, layout, torch.bfloat16)
    of, size = scene.predictions, len(scene.predictions.locations)
    pairs = torch.arange(2).repeat_interleave(size), torch.arange(size).repeat(2)
    with ClaimedCuda() as device:
        there, _ = sent(device, scene)
        found = [there.gather(x, *map(device.sent, pairs)).held for x in (there.logits, there.raw_ltrb, there.quality)]
    expected = [of.gather(x, *pairs) for x in (of.logits, of.raw_ltrb, of.quality)]
    assert all(torch.equal(x, y) for x, y in zip(found, expected))


class Operators(TorchDispatchMode):
    """Counts the operators that calculate on the device; views and room without numbers are none."""

    def __init__(self, kind: type[Tensor]) -> None:
        super().__init__()
        self.kind, self.count = kind, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, returns = func(*args, **(kwargs or {})), func._schema.returns
        is_view = any(x.alias_info is not None and not x.alias_info.is_write for x in returns)
        name = func.overloadpacket.__name__
        if isinstance(result, self.kind | tuple | list) and not is_view and "empty" not in name:
            self.count[name] += 1
        return result


def test_few_operators() -> None:
    """The assignment, the three losses and their gradients, whatever the number of levels and images."""
    counts = []
    for images in ((7, 5), (3, 0, 4, 2)):
        scene = scene_of("detectron2", images, (256, 320))
        with ClaimedCuda() as device:
            dense, (predictions, truth) = device.take(scene.dense), sent(device, scene)
            dense.losses(predictions, truth)  # makes the constants of these sizes
            with Operators(device.kind) as seen:
                torch.autograd.backward(total(dense.losses(predictions, truth)))
        counts.append(seen.count.total())
    assert counts[0] == counts[1]
    assert counts[0] <= 290, seen.count.most_common()
