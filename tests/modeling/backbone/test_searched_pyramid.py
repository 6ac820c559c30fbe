"""The pyramid found by NAS-FCOS."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor

from fcos_d2.modeling import BACKBONES
from fcos_d2.modeling.backbone.mobilenet import MobileNetV2
from fcos_d2.modeling.backbone.searched_pyramid import CELLS, NASFPN, nas_fpn, nas_fpn_nearest
from fcos_d2.modeling.deform import DeformConv
from fcos_d2.modeling.unfilled import unfilled

# SEARCH.DECODER.CONFIG of Lausannen/NAS-FCOS, configs/search/*.yaml: inputs, operations, aggregation.
PUBLISHED = [
    [3, 3, 4, 4, 1],
    [3, 3, 4, 4, 1],
    [4, 3, 4, 3, 1],
    [1, 3, 4, 3, 1],
    [5, 3, 4, 4, 1],
    [4, 7, 4, 4, 1],
    [7, 2, 4, 4, 1],
]
DEFORM, SKIP = 4, 3


class Features(Backbone):
    """Hands on given maps."""

    def __init__(self, channels: int = 8, first: str = "res3") -> None:
        super().__init__()
        self._out_features = [first, "res4", "res5"]
        self._out_feature_channels = {name: channels * 2**i for i, name in enumerate(self._out_features)}
        self._out_feature_strides = {name: 2 ** int(name[-1]) for name in self._out_features}

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._out_features, maps))


def maps(height: int = 64, width: int = 96) -> list[Tensor]:
    return [torch.randn(2, 8 * 2**i, height // 8 // 2**i, width // 8 // 2**i) for i in range(3)]


def test_row_and_its_yaml_build_the_same(same_in_yaml):
    assert same_in_yaml("MNV2_NASFPN")  # those with ResNet are among the rows of test_resnet.py


def test_cells_are_the_published_ones():
    assert [[c.first + 1, c.second + 1, DEFORM, DEFORM if c.deform_second else SKIP, 1] for c in CELLS] == PUBLISHED


@pytest.mark.parametrize("top_levels", [0, 2])
def test_shapes_and_gradients(top_levels):
    net = nas_fpn(Features(), out_channels=32, top_levels=top_levels).train()
    found = net(maps())
    names = ["p3", "p4", "p5", "p6", "p7"][: 3 + top_levels]
    assert list(found) == list(net.output_shape()) == names and net.size_divisibility == 32
    for i, name in enumerate(names):
        assert net.output_shape()[name] == ShapeSpec(channels=32, stride=8 * 2**i)
        assert found[name].shape == (2, 32, -(-8 // 2**i), -(-12 // 2**i))
    sum(x.square().mean() for x in found.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A convolution's bias is lost in the batch norm that follows.
        assert parameter.grad.abs().sum() > 0 or name.endswith(".0.bias"), name


@pytest.mark.parametrize(("pyramid", "mode"), [(nas_fpn, "bilinear"), (nas_fpn_nearest, "nearest")])
def test_pyramid_is_the_formula(pyramid, mode):
    """Written out map by map, as mmdetection counts them: C3, C4, C5 are 0, 1, 2 and the cells 3 to 9."""
    net = pyramid(Features(), out_channels=32).eval()
    for module in net.modules():
        if isinstance(module, DeformConv):
            torch.nn.init.normal_(module.offset.weight, std=0.1)
    inputs = maps()
    f = [adapt(x) for adapt, x in zip(net.adapt, inputs)]

    def cell(c: int, a: int, b: int, skip: bool = False) -> Tensor:
        x, y = net.cells[c].first(f[a]), f[b] if skip else net.cells[c].second(f[b])
        size = max(tuple(x.shape[-2:]), tuple(y.shape[-2:]))
        x, y = (F.interpolate(z, size=size, mode=mode) for z in (x, y))
        return net.cells[c].conv(net.cells[c].norm(torch.cat([x, y], 1)).clamp(min=0))

    f.append(cell(0, 2, 2))
    f.append(cell(1, 2, 2))
    f.append(cell(2, 3, 2, skip=True))
    f.append(cell(3, 0, 2, skip=True))
    f.append(cell(4, 4, 2))
    f.append(cell(5, 3, 6))
    f.append(cell(6, 6, 1))
    for (name, found), i, x in zip(net(inputs).items(), (9, 8, 7), inputs):
        y = f[i] + F.interpolate(f[5], size=f[i].shape[-2:], mode="bilinear")
        y = F.interpolate(y, size=x.shape[-2:], mode="bilinear")
        assert torch.allclose(found, y, atol=1e-5), name


def test_rows():
    first = BACKBONES["R_50_NASFPN"]
    assert first.pyramid is nas_fpn and BACKBONES["R_50_NASFPN_nearest"].pyramid is nas_fpn_nearest
    with unfilled():
        net = first.pyramid(first.bottom_up(**first.arguments))
    deformable = [m for m in net.modules() if isinstance(m, DeformConv)]
    assert len(deformable) == 12 and {m.offset.out_channels for m in deformable} == {2 * 27}
    assert all(m.bias is not None for m in deformable)
    row = BACKBONES["MNV2_NASFPN"]
    with unfilled():
        bottom_up = row.bottom_up(**row.arguments)
    assert isinstance(bottom_up, MobileNetV2)
    trained = [any(p.requires_grad for p in part.parameters()) for part in bottom_up.features]
    assert trained == [False, False] + [True] * 16


def test_refusals():
    with pytest.raises(ValueError, match=r"strides \[4, 16, 32\], but the pyramid was found for \[8, 16, 32\]"):
        NASFPN(Features(first="res2"), ("res2", "res4", "res5"))
    with pytest.raises(ValueError, match=r"NASFPN\.resize is 'area'"):
        NASFPN(Features(), resize="area")
    with pytest.raises(ValueError, match="top_levels is 3"):
        NASFPN(Features(), top_levels=3)
