"""HRNetV2p and HRFPN."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from fcos_d2.config.compose import compose
from fcos_d2.config.yacs import yaml_of_recipe
from fcos_d2.modeling import BACKBONES
from fcos_d2.modeling.backbone.hrnet import BRANCHES, HRFPN, HRModule, HRNet, hrfpn, hrfpn_6l
from fcos_d2.modeling.norm import EvalBatchNorm2d
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.zoo.recipes import RECIPES

ROWS = [name for name, row in BACKBONES.items() if row.bottom_up is HRNet]


@pytest.mark.parametrize("row", ROWS)
def test_row_and_its_yaml_build_the_same(row, same_in_yaml):
    assert same_in_yaml(row)


@pytest.mark.parametrize(
    ("recipe", "row", "millions"),
    [
        ("fcos_hrnet", "R_50_FPN", 32.0),
        ("fcos_hrnet", "HRNet_W18_HRFPN", 17.5),
        ("fcos_hrnet_6l", "R_50_FPN_6l", 32.7),
        ("fcos_hrnet_6l", "HRNet_W18_HRFPN_6l", 18.1),
        ("fcos_hrnet", "R_101_FPN", 51.0),
        ("fcos_hrnet", "HRNet_W32_HRFPN", 37.3),
        ("fcos_hrnet_6l", "R_101_FPN_6l", 51.6),
        ("fcos_hrnet_6l", "HRNet_W32_HRFPN_6l", 37.9),
        ("fcos_hrnet_6l", "HRNet_W40_HRFPN_6l", 54.1),
    ],
)
def test_parameters_are_as_many_as_published(recipe, row, millions):
    """The column "# params" in the README of HRNet/HRNet-FCOS: trained parameters of the detector."""
    with unfilled():
        model = instantiate(compose(recipe, row, "2x").model)
    assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, 1) == millions


@pytest.mark.parametrize(("pyramid", "first"), [(hrfpn, 3), (hrfpn_6l, 2)])
@pytest.mark.parametrize("norm", ["EvalBN", "SyncBN"])
def test_shapes_and_gradients(pyramid, first, norm):
    net = pyramid(HRNet(4, norm=norm), out_channels=16).train()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    maps = net(torch.randn(2, 3, 128, 256))
    names = [f"p{i}" for i in range(first, 8)]
    assert list(maps) == list(net.output_shape()) == names and net.size_divisibility == 32
    for i, name in enumerate(names, first):
        assert net.output_shape()[name].stride == 2**i
        assert maps[name].shape == (2, 16, 128 // 2**i, 256 // 2**i)
    sum(x.square().mean() for x in maps.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    moved = {name for name, buffer in net.named_buffers() if not torch.equal(buffer, buffers[name])}
    assert moved == (set() if norm == "EvalBN" else set(buffers))


def test_features_of_the_bottom_up_network():
    net = HRNet(18)
    specs = net.output_shape()
    assert [(name, s.channels, s.stride) for name, s in specs.items()] == [
        (f"branch{i}", 18 * 2**i, 4 * 2**i) for i in range(4)
    ]
    maps = HRNet(4, out_features=["branch1", "branch3"])(torch.randn(1, 3, 64, 32))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {"branch1": (1, 8, 8, 4), "branch3": (1, 32, 2, 1)}


def test_module_sums_all_resolutions():
    module = HRModule((4, 8, 16), norm="EvalBN").eval()
    maps = [torch.randn(1, 4 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(3)]
    x = [branch(m) for branch, m in zip(module.branches, maps)]
    fuse = module.fuse
    up = [x[0] + F.interpolate(fuse[0][1](x[1]), scale_factor=2) + F.interpolate(fuse[0][2](x[2]), scale_factor=4)]
    up.append(fuse[1][0](x[0]) + x[1] + F.interpolate(fuse[1][2](x[2]), scale_factor=2))
    up.append(fuse[2][0](x[0]) + fuse[2][1](x[1]) + x[2])
    for found, wanted in zip(module(maps), up):
        assert torch.allclose(found, wanted.clamp(min=0), atol=1e-6)


@pytest.mark.parametrize(("conv_stride", "num_levels"), [(2, 5), (1, 6)])
def test_pyramid_is_the_formula(conv_stride, num_levels):
    """As in HRNet-FCOS, maskrcnn_benchmark/modeling/backbone/hrfpn.py: enlarged by factors, averaged over windows."""
    net = HRFPN(HRNet(4), BRANCHES, 16, num_levels, conv_stride).eval()
    x = torch.randn(1, 3, 128, 192)
    features = list(net.bottom_up(x).values())
    scaled = [features[0]]
    scaled += [F.interpolate(f, scale_factor=2**i, mode="bilinear") for i, f in enumerate(features) if i]
    merged = net.reduction(torch.cat(scaled, 1))
    for i, found in enumerate(net(x).values()):
        conv = net.output[i]
        level = F.conv2d(F.avg_pool2d(merged, 2**i), conv.weight, conv.bias, stride=conv_stride, padding=1)
        assert torch.allclose(found, level, atol=1e-5)


def test_image_smaller_than_the_largest_window():
    maps = hrfpn_6l(HRNet(4), out_channels=16)(torch.randn(1, 3, 32, 64))
    assert [tuple(x.shape[-2:]) for x in maps.values()] == [(8, 16), (4, 8), (2, 4), (1, 2), (1, 1), (1, 1)]


def test_freeze():
    net = HRNet(4, freeze_at=1)
    assert not any(p.requires_grad for p in net.stem.parameters())
    assert all(p.requires_grad for p in net.layer1.parameters())
    assert not any(isinstance(m, EvalBatchNorm2d) for m in net.stem.modules())
    assert not any(p.requires_grad for p in HRNet(4, freeze_at=2).layer1.parameters())
    with pytest.raises(ValueError, match=r"HRNet\.out_features is 'res2'"):
        HRNet(4, out_features=["res2"])


def test_six_levels_train_and_detect():
    keys = yaml_of_recipe(RECIPES["fcos_hrnet_6l"])
    assert keys["FPN_STRIDES"] == [4, 8, 16, 32, 64, 128]
    assert keys["SIZES_OF_INTEREST"] == [32, 64, 128, 256, 512]
    config = compose("fcos_hrnet_6l", "HRNet_W18_HRFPN_6l", "2x").model
    config.backbone.bottom_up.width = 4
    config.backbone.out_channels = 64
    config.num_classes = 3
    model = instantiate(config)
    boxes = torch.tensor([[8.0, 8, 24, 30], [10, 20, 60, 80], [0, 0, 120, 127]])
    instances = Instances((128, 128), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 1, 2]))
    image = torch.rand(3, 128, 128) * 255
    losses = model([{"image": image, "instances": instances, "height": 128, "width": 128}])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    found = model.eval()([{"image": image, "height": 128, "width": 128}])
    assert len(found[0]["instances"]) <= 100
