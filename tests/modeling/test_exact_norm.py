"""Norms in channels_last on the CPU: errors against float64, beside those of PyTorch's kernel for contiguous maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import NaiveSyncBatchNorm, ShapeSpec
from detectron2.modeling import Backbone
from scenes import dense_of, detector, relative
from torch import Tensor, nn

from fcos_d2.config.load import load_config
from fcos_d2.modeling import FCOS, FCOSHead
from fcos_d2.modeling.nas_head import NASFCOSHead
from fcos_d2.modeling.norm import EvalBatchNorm2d, get_norm
from fcos_d2.modeling.rewrite import prepare_training, rewrite
from fcos_d2.modeling.rewrite.invariant import without_padding

LAST = torch.channels_last
NAMES = ("GN", "BN", "SyncBN", "EvalBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")


class OwnGroupNorm(nn.GroupNorm):
    """As libraries of backbones have them: the same numbers by a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class OwnBatchNorm(nn.BatchNorm2d):
    """A class of its own with the forward that it inherits."""


def within(module: nn.Module) -> nn.Module:
    """The one norm in a module."""
    (norm,) = (m for m in module.modules() if isinstance(m, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)))
    return norm


def tower(**options: Any) -> nn.Module:
    return FCOSHead(num_classes=1, in_channels=64, num_class_convs=1, num_levels=1, **options).cls_tower


PLACES: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: get_norm(name, 64) for name in NAMES},
    "head GN": lambda: within(tower()),
    "head BN": lambda: within(tower(norm="BN", norm_shared_affine=True)),
    "head SyncBN": lambda: within(tower(norm="SyncBN")),
    "NAS head": lambda: within(NASFCOSHead(num_classes=1, in_channels=64, layers=("conv1x1",)).cls_tower),
    "batch invariant": lambda: within(without_padding(nn.Sequential(nn.GroupNorm(32, 64)))),
    **{
        f"theirs, {kind.__name__}": lambda kind=kind: within(rewrite(nn.Sequential(kind(*args_of(kind)))))
        for kind in (nn.GroupNorm, nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm, OwnGroupNorm, OwnBatchNorm)
    },
    "theirs, on the CPU": lambda: within(
        prepare_training(nn.Sequential(nn.SyncBatchNorm(64)), device="cpu", amp=False)
    ),
}


def args_of(kind: type[nn.Module]) -> tuple[int, ...]:
    return (32, 64) if issubclass(kind, nn.GroupNorm) else (64,)


def results(norm: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Output, gradients and statistics of a training step of a copy of a norm."""
    norm, x = copy.deepcopy(norm), x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    assert y.stride() == x.stride() and y.dtype == x.dtype
    y.backward(grad)
    gradients = {name: p.grad for name, p in norm.named_parameters()}
    return {"output": y, "input": x.grad, **gradients, **dict(norm.named_buffers())}


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((value.double() - exact[name].double()).abs().max()) for name, value in found.items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [(1, 64, 64, 80), (2, 64, 7, 10)], ids=["large", "small"])
def test_as_exact_as_contiguous(place: str, size: tuple[int, ...]) -> None:
    norm = PLACES[place]().train()
    with torch.no_grad():
        for p in norm.parameters():
            p.uniform_(0.5, 1.5)
    for mean in (0, 1, 10, 100):
        x, grad = torch.randn(size) + mean, torch.randn(size)
        if isinstance(norm, EvalBatchNorm2d):
            norm.running_mean.fill_(mean)
        exact = results(copy.deepcopy(norm).double(), x.double(), grad.double())
        allowed = errors(results(norm, x, grad), exact)
        found = errors(results(norm, x.contiguous(memory_format=LAST), grad.contiguous(memory_format=LAST)), exact)
        for name, error in found.items():
            assert error <= 3 * allowed[name] + 1e-7 * float(exact[name].abs().max()), (name, mean, allowed[name])


@pytest.mark.parametrize("name", ["GN", "BN"])
@pytest.mark.parametrize("size", [(1, 256, 25, 38), (1, 256, 50, 76), (1, 256, 61, 67)])
def test_sums_of_large_numbers(name: str, size: tuple[int, ...]) -> None:
    """A mean that is a hundred deviations: what its rounding adds to the gradient is more than all else there."""
    norm = get_norm(name, 256)
    x, grad = torch.randn(size) + 100, torch.randn(size)
    exact = results(copy.deepcopy(norm).double(), x.double(), grad.double())
    allowed = errors(results(norm, x, grad), exact)
    found = errors(results(norm, x.contiguous(memory_format=LAST), grad.contiguous(memory_format=LAST)), exact)
    for part in ("output", "input"):
        assert found[part] <= 3 * allowed[part], part


def parts_of_chunks() -> Iterator[tuple[str, nn.Module]]:
    yield "no affine", get_norm("BN", 8).__class__(8, affine=False)
    yield "no statistics", get_norm("BN", 8).__class__(8, track_running_stats=False).eval()
    yield "mean over all batches", get_norm("BN", 8).__class__(8, momentum=None)
    yield "frozen weight", get_norm("BN", 8).requires_grad_(False)
    yield "no weight", get_norm("GN", 32).__class__(2, 8, affine=False)


@pytest.mark.parametrize("kind", [name for name, _ in parts_of_chunks()])
@pytest.mark.parametrize("side", [160, 6], ids=["large", "small"])
def test_options_of_a_norm(kind: str, side: int) -> None:
    norm = dict(parts_of_chunks())[kind]
    x = torch.randn(1, 8, side, side)
    plain, last = copy.deepcopy(norm), norm
    for _ in range(2):
        wanted, found = plain(x), last(x.contiguous(memory_format=LAST))
        assert torch.allclose(found, wanted, atol=1e-5)
        x = x + 1
    for name, buffer in last.named_buffers():
        assert torch.allclose(buffer, plain.get_buffer(name), atol=1e-5), name
    assert all(m.weight is None or m.weight.grad is None for m in (plain, last))


@pytest.mark.parametrize("name", ["GN", "BN", "EvalBN"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Maps in half precision, weights in float32, as under autocast: only the result is rounded."""
    norm = get_norm(name, 64)
    x, grad = (torch.randn(1, 64, 64, 80).to(dtype).contiguous(memory_format=LAST) for _ in range(2))
    found, exact = results(norm, x, grad), results(copy.deepcopy(norm).double(), x.double(), grad.double())
    assert found["input"].dtype == dtype and found["weight"].dtype == torch.float32
    step = torch.finfo(dtype).eps
    for part in ("output", "input"):
        assert torch.allclose(found[part].double(), exact[part], atol=step / 8, rtol=step), part
    for part in ("weight", "bias"):
        assert torch.allclose(found[part].double(), exact[part], atol=1e-3), part


@pytest.mark.parametrize("name", ["GN", "BN"])
def test_shapes_that_have_two_layouts_or_none(name: str) -> None:
    """One cell, one column, one channel alone, slices of larger maps, no image."""
    wide = torch.randn(2, 64, 48, 90) + 100
    last = wide.contiguous(memory_format=LAST)
    norm = get_norm(name, 64)
    for part in (
        (..., 0, 0),
        (..., 0),
        (..., 0, slice(None)),
        (..., slice(40), slice(70)),
        (slice(1, 2),),
        (slice(0),),
    ):
        keep = [slice(v, v + 1) if isinstance(v, int) else v for v in part]
        wanted, found = norm(wide[tuple(keep)].contiguous()), norm(last[tuple(keep)])
        assert torch.allclose(found, wanted, atol=1e-4), part
    halves = get_norm(name, 32)
    assert torch.allclose(halves(last[:, ::2]), halves(wide[:, ::2].contiguous()), atol=1e-4)


def test_gradient_of_an_overwritten_result() -> None:
    """ReLU in place, as towers have it, and a gradient that lies otherwise than the map."""
    for norm in (get_norm("GN", 64), get_norm("BN", 64)):
        x, grad = torch.randn(1, 64, 50, 60), torch.randn(1, 64, 50, 60)
        found = []
        for layout in (torch.contiguous_format, LAST):
            value = x.clone(memory_format=layout).requires_grad_()
            norm(value).relu_().backward(grad)
            found.append(value.grad)
        assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("name", ["GN", "BN", "SyncBN"])
def test_exports_see_one_operator(name: str) -> None:
    norm = get_norm(name, 64).eval()
    x = torch.randn(2, 64, 32, 40).contiguous(memory_format=LAST)
    traced = torch.jit.trace(norm, x)
    operators = [node.kind() for node in traced.inlined_graph.nodes() if node.kind().endswith("_norm")]
    assert operators == [f"aten::{'group' if name == 'GN' else 'batch'}_norm"]
    program = torch.export.export(nn.Sequential(norm), (x,))
    assert not any("autograd" in str(node.target) for node in program.graph.nodes)
    for exported in (traced, torch.jit.script(norm), program.module()):
        assert torch.allclose(exported(x), norm(x), atol=1e-4)
    assert norm.to("meta")(x.to("meta")).shape == x.shape


@pytest.mark.parametrize("variant", ["FCOS_RT_MS_DLA_34_4x", "fcos_bn_bs16_MNV2_FPN_1x"])
def test_backbones_that_train_their_norms_give_the_same_in_both_layouts(variant: str) -> None:
    model = instantiate(load_config(variant).model).train()
    images = torch.randn(1, 3, 256, 320) * 50
    found = []
    with torch.no_grad():
        for layout in (torch.contiguous_format, LAST):
            features = copy.deepcopy(model.backbone).to(memory_format=layout)(images.contiguous(memory_format=layout))
            maps = copy.deepcopy(model.dense.head)([features[name] for name in model.head_in_features])
            found.append([torch.cat([x.flatten() for x in kind]) for kind in maps])
    for one, other, bound in zip(*found, (4e-6, 4e-5, 4e-5)):  # raw ltrb and quality start around 0
        assert relative(other, one) < bound


# ----------------------------------------------------------------------------------------------------- others' models
class Theirs(Backbone):
    """A backbone of others with PyTorch's norms and one of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.GroupNorm(8, 32), nn.ReLU(), nn.Conv2d(32, 32, 2, 2))
        self.own, self.batch = OwnGroupNorm(8, 32), OwnBatchNorm(32)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"p3": self.batch(self.own(self.layers(x) + 50))}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"p3": ShapeSpec(channels=32, stride=8)}


@pytest.mark.parametrize("way", ["plain", "optimized", "training"])
def test_a_backbone_of_others(way: str) -> None:
    backbone = Theirs()
    with torch.no_grad():
        backbone.layers[0].bias.fill_(100)
    dense = dense_of("improved", num_levels=1)
    model = FCOS(backbone=backbone, dense=dense, num_classes=3).train(way == "training")
    assert list(model.backbone.state_dict()) == list(backbone.state_dict())
    assert model.backbone.batch.weight is backbone.batch.weight
    model = model.optimize() if way == "optimized" else model
    images = torch.randn(1, 3, 256, 320)
    exact = copy.deepcopy(backbone).train(way == "training").double()(images.double())["p3"]
    with torch.no_grad():
        found = model.backbone(images.contiguous(memory_format=LAST))["p3"]
    assert float((found.double() - exact).abs().max()) < 1e-4
    assert copy.deepcopy(model.backbone)(images)["p3"].shape == exact.shape


def test_a_model_whose_norms_are_exact_is_taken_as_it_is() -> None:
    given = detector(norm="BN")
    parts = {"backbone": given.backbone, "dense": given.dense}
    model = FCOS(**parts, num_classes=given.num_classes)
    assert model.backbone is given.backbone and model.dense is given.dense
