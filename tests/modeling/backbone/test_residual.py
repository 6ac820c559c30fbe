"""ResNet and ResNeXt, plain and with deformable stages."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn

from fcos_d2.modeling import BACKBONES, FCOSHead
from fcos_d2.modeling.backbone import resnet
from fcos_d2.modeling.backbone.residual import DeformBottleneck
from fcos_d2.modeling.deform import DeformConv
from fcos_d2.modeling.unfilled import unfilled

ROWS = [name for name, row in BACKBONES.items() if row.bottom_up is resnet]
NARROW = {"stem_out_channels": 8, "res2_out_channels": 16, "width_per_group": 4, "norm": "BN", "freeze_at": 0}
DEFORM = {"deform_per_stage": (False, False, True, True)}


@pytest.mark.parametrize("row", ROWS)
def test_row_and_its_yaml_build_the_same(row, same_in_yaml):
    assert same_in_yaml(row)


@pytest.mark.parametrize(
    ("checkpoint", "row", "more"),
    [
        ("fcos_core__fcos_imprv_R_50_FPN_1x", "R_50_FPN", {}),
        ("fcos_core__fcos_imprv_dcnv2_R_50_FPN_1x", "R_50_dcnv2_FPN", {"deformable": True}),
        ("fcos_core__fcos_imprv_dcnv2_R_101_FPN_2x", "R_101_dcnv2_FPN", {"deformable": True}),
        ("fcos_core__fcos_imprv_dcnv2_X_101_32x8d_FPN_2x", "X_101_32x8d_dcnv2_FPN", {"deformable": True}),
        ("fcos_core__fcos_imprv_dcnv2_X_101_64x4d_FPN_2x", "X_101_64x4d_dcnv2_FPN", {"deformable": True}),
        ("adelaidet__MS_X_101_32x8d_2x", "X_101_32x8d_std_FPN", {}),
        ("adelaidet__MS_X_101_32x8d_2x_dcnv2", "X_101_32x8d_std_dcnv2_zero_FPN", {"deformable": True}),
        ("adelaidet__MS_X_101_64x4d_2x_dcnv2", "X_101_64x4d_dcnv2_zero_FPN", {"deformable": True}),
        ("adelaidet__FCOS_RT-MS_R_50_4x_syncbn", "R_50_syncbn_FPN", {"recipe": "realtime", "frozen": True}),
        (
            "adelaidet__FCOS_RT-MS_R_50_4x_syncbn_bn_head",
            "R_50_syncbn_FPN",
            {"recipe": "realtime", "frozen": True, "norm": "SyncBN"},
        ),
        (
            "mmdet__fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco",
            "R_50_dcnv2_zero_FPN",
            {"deformable": True, "frozen": True},
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_tensors_are_those_of_the_published_checkpoint(checkpoint, row, more, has_tensors_of):
    assert has_tensors_of(checkpoint, row, **more)


def test_names_of_deformable_blocks_follow_the_documented_rule(published):
    row = BACKBONES["X_101_64x4d_dcnv2_FPN"]
    with unfilled():
        ours = {
            f"backbone.bottom_up.{k}": tuple(v.shape) for k, v in row.bottom_up(**row.arguments).state_dict().items()
        }
    theirs = {
        key.replace("conv2_offset.", "conv2.offset."): shape
        for key, shape in published("adelaidet__MS_X_101_64x4d_2x_dcnv2").items()
        if key.startswith("backbone.bottom_up.")
    }
    assert ours == theirs


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_deformable_stages_keep_shapes_and_train(groups, stride_in_1x1):
    arguments = {**NARROW, **DEFORM, "num_groups": groups, "stride_in_1x1": stride_in_1x1}
    net = resnet(50, **arguments, deform_groups=2, out_features=("res2", "res3", "res4", "res5"))
    maps = net(torch.randn(2, 3, 64, 96))
    for i, (name, spec) in enumerate(net.output_shape().items()):
        assert spec.stride == 4 * 2**i
        assert maps[name].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
    sum(v.square().mean() for v in maps.values()).backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    blocks = {stage: {type(b) for b in getattr(net, stage)} for stage in maps}
    assert blocks["res2"] == blocks["res3"] == {BottleneckBlock}
    assert blocks["res4"] == blocks["res5"] == {DeformBottleneck}
    net.eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x)["res5"], net(x)["res5"])


def test_deformable_bottleneck_with_zero_offsets_is_a_bottleneck_with_half_its_kernel():
    arguments = {"bottleneck_channels": 8, "stride": 2, "norm": "BN", "num_groups": 2}
    plain, deform = BottleneckBlock(16, 32, **arguments), DeformBottleneck(16, 32, **arguments)
    deform.load_state_dict({**deform.state_dict(), **plain.state_dict()})
    with torch.no_grad():
        deform.conv2.weight *= 2
    x = torch.randn(2, 16, 10, 12)
    torch.testing.assert_close(deform.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("init", ["zero", "kaiming_uniform"])
def test_offsets_start_as_published(init):
    block = resnet(50, **NARROW, **DEFORM, deform_offset_init=init).res4[0]
    weight = block.conv2.offset.weight
    assert not block.conv2.offset.bias.any()
    if init == "zero":
        assert not weight.any()
    else:
        bound = (3 / weight[0].numel()) ** 0.5  # of a uniform distribution with variance 1 / fan_in
        assert 0.9 * bound < weight.abs().max() <= bound


def test_freezing_reaches_deformable_stages():
    net = resnet(50, **{**NARROW, "norm": "SyncBN", "freeze_at": 4}, **DEFORM)
    assert not any(p.requires_grad for p in net.res4.parameters())
    assert isinstance(net.res4[0].conv2, DeformConv)
    assert isinstance(net.res4[0].conv2.norm, FrozenBatchNorm2d)
    assert isinstance(net.res5[0].conv2.norm, nn.SyncBatchNorm)
    assert all(p.requires_grad for p in net.res5.parameters())
    counters = [name for name in net.state_dict() if name.endswith("num_batches_tracked")]
    assert counters and all(name.startswith("res5.") for name in counters)


@pytest.mark.parametrize(("row", "millions"), [("R_50_FPN", 32.0), ("R_101_FPN", 51.0)])
def test_number_of_parameters_is_the_published_one(row, millions):
    # Stated for these two detectors in HRNet-FCOS's README.
    at = BACKBONES[row]
    with unfilled():
        parts = at.pyramid(at.bottom_up(**at.arguments), at.features, at.channels, 2), FCOSHead()
    assert sum(p.numel() for part in parts for p in part.parameters()) / 1e6 == pytest.approx(millions, abs=0.3)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="depth 77"):
        resnet(77)
    with pytest.raises(ValueError, match="deform_per_stage"):
        resnet(18, res2_out_channels=64, **DEFORM)
    with pytest.raises(ValueError, match="one value for each of res2, res3, res4 and res5"):
        resnet(50, deform_per_stage=(True, True))
