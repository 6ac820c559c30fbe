"""The head found by NAS-FCOS."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from fcos_d2.config.compose import compose
from fcos_d2.config.yacs import add_fcos_config, yaml_of_recipe
from fcos_d2.modeling import NASFCOSHead
from fcos_d2.modeling.deform import DeformConv
from fcos_d2.zoo.recipes import RECIPES

SMALL = {"num_classes": 3, "in_channels": 32, "num_levels": 2}


def test_layers_are_the_published_ones():
    """deformable 3x3, 3x3, deformable 3x3, 1x1; two groups of offsets; only deformable ones have a bias."""
    head = NASFCOSHead()
    for tower in (head.cls_tower, head.bbox_tower):
        convs = [layer.conv for layer in tower]
        assert [type(c) for c in convs] == [DeformConv, nn.Conv2d, DeformConv, nn.Conv2d]
        assert [tuple(c.weight.shape) for c in convs] == [(256, 256, 3, 3)] * 3 + [(256, 256, 1, 1)]
        assert [c.bias is not None for c in convs] == [True, False, True, False]
        assert convs[0].offset.out_channels == convs[2].offset.out_channels == 2 * 27
        assert [(layer.norm.num_groups, layer.norm.num_channels) for layer in tower] == [(32, 256)] * 4
    assert head.cls_logits.bias.detach().sigmoid().allclose(torch.full((80,), 0.01))


def test_shapes_and_gradients():
    head = NASFCOSHead(**SMALL)
    features = [torch.randn(2, 32, 8, 12), torch.randn(2, 32, 4, 6)]
    outputs = head(features)
    for maps, channels in zip(outputs, (3, 4, 1)):
        assert [tuple(x.shape) for x in maps] == [(2, channels, 8, 12), (2, channels, 4, 6)]
    sum(x.square().mean() for maps in outputs for x in maps).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("quality_on", ["class", "box"])
def test_maps_are_the_formula(quality_on):
    head = NASFCOSHead(**SMALL, quality_on=quality_on, layers=("conv3x3", "conv1x1"), conv_bias=True)
    head.scales.data = torch.tensor([1.0, 3.0])
    x = torch.randn(1, 32, 5, 5)

    def branch(tower: nn.Sequential) -> torch.Tensor:
        y = x
        for layer, padding in zip(tower, (1, 0)):
            y = F.conv2d(y, layer.conv.weight, layer.conv.bias, padding=padding)
            y = F.group_norm(y, 32, layer.norm.weight, layer.norm.bias).clamp(min=0)
        return y

    logits, raw_ltrb, quality = head([x, x])
    for level, scale in enumerate((1.0, 3.0)):
        assert torch.allclose(logits[level], head.cls_logits(branch(head.cls_tower)), atol=1e-5)
        assert torch.allclose(raw_ltrb[level], head.bbox_pred(branch(head.bbox_tower)) * scale, atol=1e-5)
        source = head.cls_tower if quality_on == "class" else head.bbox_tower
        assert torch.allclose(quality[level], head.quality(branch(source)), atol=1e-5)


@pytest.mark.parametrize("recipe", ["nas_fcos_head", "mmdet_nas_fcos_head"])
def test_yaml_and_lazy_config_build_the_same_and_it_trains(recipe):
    config = compose(recipe, "R_18_slim_FPN", "1x").model
    config.num_classes = 3
    cfg = get_cfg()
    add_fcos_config(cfg)
    cfg.merge_from_other_cfg(CfgNode({"MODEL": {"FCOS": yaml_of_recipe(RECIPES[recipe])}}))
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "FCOS", "cpu"
    cfg.MODEL.FCOS.NUM_CLASSES = 3
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.FPN.IN_FEATURES = "build_fcos_resnet_fpn_backbone", ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    model, twin = instantiate(config), build_model(cfg)
    assert isinstance(model.dense.head, NASFCOSHead)
    assert repr(model.dense) == repr(twin.dense)

    image = torch.rand(3, 64, 96) * 255
    instances = Instances((64, 96), gt_boxes=Boxes(torch.tensor([[8.0, 8, 60, 50]])), gt_classes=torch.tensor([1]))
    losses = model([{"image": image, "instances": instances, "height": 64, "width": 96}])
    sum(losses.values()).backward()
    for name, parameter in model.dense.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert len(model.eval()([{"image": image, "height": 64, "width": 96}])[0]["instances"]) <= 100


def test_refusals():
    for arguments, message in (
        ({"layers": ("sep3x3",)}, "NASFCOSHead.layers is 'sep3x3', but it must be one of: 'deform3x3'"),
        ({"in_channels": 48}, "in_channels is 48, but GroupNorm needs a multiple of 32"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"quality_on": "cls"}, "quality_on is 'cls'"),
        ({"deform_groups": 3}, "deform_groups is 3"),
    ):
        with pytest.raises(ValueError, match=message):
            NASFCOSHead(**{**SMALL, **arguments})
    with pytest.raises(ValueError, match="built for 2 levels, but it got 1"):
        NASFCOSHead(**SMALL)([torch.randn(1, 32, 4, 4)])
    assert math.isclose(NASFCOSHead(**SMALL, prior_prob=0.5).cls_logits.bias[0].item(), 0.0)
