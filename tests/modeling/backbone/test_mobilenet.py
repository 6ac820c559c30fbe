"""MobileNetV2 as the published detectors use it."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from fcos_d2.modeling import BACKBONES
from fcos_d2.modeling.backbone.mobilenet import MobileNetV2

ALL = ("res2", "res3", "res4", "res5")


@pytest.mark.parametrize("row", ["MNV2_FPN", "MNV2_syncbn_FPN", "MNV2_c128_syncbn_FPN"])
def test_row_and_its_yaml_build_the_same(row, same_in_yaml):
    assert same_in_yaml(row)


@pytest.mark.parametrize(
    ("checkpoint", "row"),
    [
        ("fcos_core__fcos_bn_bs16_MNV2_FPN_1x", "MNV2_FPN"),
        ("fcos_core__fcos_syncbn_bs32_MNV2_FPN_1x", "MNV2_syncbn_FPN"),
        ("fcos_core__fcos_syncbn_bs32_c128_MNV2_FPN_1x", "MNV2_c128_syncbn_FPN"),
        ("fcos_plus__fcos_syncbn_bs64_c128_ms_MNV2_FPN_1x", "MNV2_c128_syncbn_FPN"),
    ],
)
def test_tensors_are_those_of_the_published_checkpoint(checkpoint, row, has_tensors_of):
    assert has_tensors_of(checkpoint, row)


def test_names_follow_the_documented_rule(published):
    def ours(key: str) -> str:
        match = re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(.+)", key)
        if match is None:
            return key
        j, part = divmod(int(match[2]), 3)
        last = 1 if match[1] == "1" else 2
        place = f"{j + part}" if j == last else f"{j}.{part}"
        return f"features.{match[1]}.conv.{place}.{match[3]}"

    prefix = "backbone.body."
    theirs = published("fcos_core__fcos_bn_bs16_MNV2_FPN_1x")
    theirs = {ours(k.removeprefix(prefix)): shape for k, shape in theirs.items() if k.startswith(prefix)}
    assert theirs == {k: tuple(v.shape) for k, v in MobileNetV2().state_dict().items()}


def test_takes_torchvision_weights_and_gives_its_maps():
    whole = torchvision.models.mobilenet_v2().eval()
    net = MobileNetV2(out_features=ALL).eval()
    left = net.load_state_dict(whole.state_dict(), strict=False)
    assert not left.missing_keys
    assert {name.split(".")[0] for name in left.unexpected_keys if "features.18" not in name} == {"classifier"}
    x = torch.randn(1, 3, 64, 96)
    for name, index in zip(ALL, (3, 6, 13, 17)):
        torch.testing.assert_close(net(x)[name], whole.features[: index + 1](x))


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_shapes_and_gradients(norm):
    net = MobileNetV2(norm=norm, out_features=ALL)
    maps = net(torch.randn(2, 3, 64, 96))
    specs = net.output_shape()
    assert [(s.channels, s.stride) for s in specs.values()] == [(24, 4), (32, 8), (96, 16), (320, 32)]
    for name, spec in specs.items():
        assert maps[name].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
    sum(v.square().mean() for v in maps.values()).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_number_of_parameters():
    # 3.4 M with the 1x1 convolution to 1280 channels and the classifier of 1000 classes (arXiv:1801.04381, Table 4).
    head = 320 * 1280 + 2 * 1280 + 1281 * 1000
    assert sum(p.numel() for p in MobileNetV2().parameters()) + head == 3_504_872


def test_freezing_and_norms():
    net = MobileNetV2(freeze_at=2, out_features=["res5"])
    assert [name.split(".")[1] for name, p in net.named_parameters() if not p.requires_grad] == ["0"] * 3 + ["1"] * 6
    assert isinstance(net.features[0][1], nn.BatchNorm2d)
    assert list(net(torch.randn(1, 3, 64, 64))) == ["res5"]
    frozen = MobileNetV2(norm="FrozenBN")
    assert not [m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules()) == 51


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="res6"):
        MobileNetV2(out_features=("res6",))
    with pytest.raises(ValueError, match="norm is empty"):
        MobileNetV2(norm="")


def test_row_starts_from_weights_that_torchvision_publishes():
    assert BACKBONES["MNV2_FPN"].weights.endswith("mobilenet_v2-ecbe2b5.pth")
