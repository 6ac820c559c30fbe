"""Deformable convolution: against a plain transcription, and the laws that tie it to a plain convolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcos_d2.modeling import FCOSHead
from fcos_d2.modeling.deform import DeformConv


def sample(plane: np.ndarray, y: float, x: float) -> float:
    """Bilinear value at a position; zero outside."""
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < plane.shape[0] and 0 <= j < plane.shape[1]:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * plane[i, j]
    return total


def transcription(conv: DeformConv, x: Tensor, deform_groups: int) -> np.ndarray:
    """arXiv:1811.11168, Eq. 1, tap by tap, with the channel order that published weights have."""
    maps = conv.offset(x).detach().numpy().astype(np.float64)
    weight, bias, planes = conv.weight.detach().numpy(), conv.bias.detach().numpy(), x.numpy().astype(np.float64)
    out_channels, per_group, k, _ = weight.shape
    taps = k * k
    n, _, height, width = maps.shape
    out = np.zeros((n, out_channels, height, width))
    for at in np.ndindex(out.shape):
        image, o, row, column = at
        group = o // (out_channels * per_group // x.shape[1])
        out[at] = bias[o]
        for c in range(per_group):
            channel = group * per_group + c
            g = channel // (x.shape[1] // deform_groups)
            for tap in range(taps):
                dy, dx = maps[image, 2 * (g * taps + tap) : 2 * (g * taps + tap) + 2, row, column]
                mask = 1.0
                if conv.modulated:
                    mask = 1 / (1 + math.exp(-maps[image, 2 * taps * deform_groups + g * taps + tap, row, column]))
                i, j = divmod(tap, k)
                y0 = row * conv.stride - conv.padding + i * conv.dilation
                x0 = column * conv.stride - conv.padding + j * conv.dilation
                out[at] += weight[o, c, i, j] * mask * sample(planes[image, channel], y0 + dy, x0 + dx)
    return out


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize(("groups", "deform_groups", "stride", "dilation"), [(1, 1, 1, 1), (2, 1, 2, 1), (2, 2, 1, 2)])
def test_equals_the_transcription(modulated, groups, deform_groups, stride, dilation):
    conv = DeformConv(
        4, 6, groups=groups, deform_groups=deform_groups, stride=stride, dilation=dilation, modulated=modulated
    )
    for parameter in conv.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 4, 5, 6)
    expected = transcription(conv, x, deform_groups)
    np.testing.assert_allclose(conv(x).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("modulated", "factor"), [(True, 0.5), (False, 1.0)])
@pytest.mark.parametrize("more", [{}, {"stride": 2, "groups": 4}, {"dilation": 2, "deform_groups": 2}])
def test_zero_offsets_are_a_plain_convolution(modulated, factor, more):
    conv = DeformConv(8, 12, modulated=modulated, **more)
    nn.init.normal_(conv.bias)
    x = torch.randn(2, 8, 9, 7)
    plain = {key: value for key, value in more.items() if key != "deform_groups"}
    expected = F.conv2d(x, conv.weight * factor, conv.bias, padding=more.get("dilation", 1), **plain)
    torch.testing.assert_close(conv(x), expected)


def test_norm_comes_after_the_kernel():
    conv = DeformConv(4, 8, bias=False, norm=nn.BatchNorm2d(8))
    assert sorted(name for name, _ in conv.named_parameters()) == [
        "norm.bias",
        "norm.weight",
        "offset.bias",
        "offset.weight",
        "weight",
    ]
    y = conv(torch.randn(4, 4, 8, 8))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)


def test_every_parameter_gets_a_gradient():
    conv = DeformConv(4, 4, deform_groups=2)
    conv(torch.randn(2, 4, 6, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in conv.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_input_is_sampled_in_float32(dtype):
    """Only input, offsets and output are rounded; a position of 100.3 would be 100.5 in bfloat16."""
    conv = DeformConv(1, 1, bias=False, modulated=False)
    with torch.no_grad():
        conv.offset.bias[8] = -0.3  # y of the tap in the middle
        conv.weight.zero_()[0, 0, 1, 1] = 1
    x = torch.arange(128.0).reshape(1, 1, 128, 1)  # its value is the row, exact in both types
    with torch.autocast("cpu", dtype=dtype):
        y = conv(x.to(dtype))
    assert y.dtype == dtype
    rows = torch.arange(1, 128)
    offset = torch.tensor(-0.3, dtype=dtype).float()
    assert torch.equal(y.flatten()[1:], (rows + offset).to(dtype))
    assert conv.half()(x.half()).dtype == torch.float16


def test_empty_batch():
    assert DeformConv(4, 8, stride=2)(torch.zeros(0, 4, 8, 6)).shape == (0, 8, 4, 3)


def test_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="deform_groups is 3"):
        DeformConv(4, 4, deform_groups=3)
    with pytest.raises(ValueError, match="groups is 4"):
        DeformConv(8, 6, groups=4)
    with pytest.raises(ValueError, match="offset_init"):
        DeformConv(4, 4, offset_init="random")


class TestHead:
    def deformable(self, head: FCOSHead) -> list[str]:
        return [name for name, module in head.named_modules() if isinstance(module, DeformConv)]

    def test_last_convolution_of_both_towers_and_never_of_the_shared_one(self):
        head = FCOSHead(in_channels=32, num_shared_convs=2, deformable=True)
        assert self.deformable(head) == ["cls_tower.9", "bbox_tower.9"]
        assert head.cls_tower[9].weight.shape == (32, 32, 3, 3)
        assert head.cls_tower[9].offset.weight.shape == (27, 32, 3, 3)
        assert head.cls_tower[9].bias is not None
        assert not self.deformable(FCOSHead(in_channels=32))
        shared = FCOSHead(in_channels=32, num_shared_convs=4, num_class_convs=0, num_box_convs=0, deformable=True)
        assert not self.deformable(shared)

    def test_starts_as_published(self):
        conv = FCOSHead(in_channels=256, deformable=True).cls_tower[9].requires_grad_(False)
        assert conv.offset.weight.std() == pytest.approx(0.01, rel=0.02)
        bound = (9 * 256) ** -0.5
        assert 0.99 * bound < conv.weight.abs().max() <= bound
        assert conv.weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert not conv.bias.any() and not conv.offset.bias.any()

    def test_trains(self):
        head = FCOSHead(num_classes=3, in_channels=32, num_levels=2, deformable=True)
        maps = head([torch.randn(2, 32, 8, 8), torch.randn(2, 32, 4, 4)])
        sum(v.square().mean() for part in maps for v in part).backward()
        assert not [name for name, p in head.named_parameters() if p.grad is None]
