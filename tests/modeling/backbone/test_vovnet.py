"""VoVNet of both versions."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from fcos_d2.modeling import BACKBONES
from fcos_d2.modeling.backbone.vovnet import VOVNETS, OSABlock, VoVNet
from fcos_d2.modeling.unfilled import unfilled

ROWS = [name for name, row in BACKBONES.items() if row.bottom_up is VoVNet]
ALL = ("stem", "stage2", "stage3", "stage4", "stage5")


@pytest.mark.parametrize("row", ROWS)
def test_row_and_its_yaml_build_the_same(row, same_in_yaml):
    assert same_in_yaml(row)


@pytest.mark.parametrize("depth", [39, 57, 99])
def test_tensors_are_those_of_the_published_checkpoint(depth, has_tensors_of):
    assert has_tensors_of(f"adelaidet__vovnet-MS_V_{depth}_3x", f"V_{depth}_eSE_FPN")


@pytest.mark.parametrize("depth", [39, 57, 99])
def test_names_follow_the_documented_rule(depth, published):
    def ours(key: str) -> str:
        name = re.sub(r"^stem\.stem_(\d)/", lambda m: f"stem.{int(m[1]) - 1}/", key)
        name = re.sub(r"\.OSA\d_(\d+)\.", lambda m: f".{int(m[1]) - 1}.", name)
        name = re.sub(r"\.OSA\d_\d+_\w+/", "/", name)
        return name.replace("/conv.", ".").replace("/norm.", ".norm.")

    prefix = "backbone.bottom_up."
    theirs = published(f"adelaidet__vovnet-MS_V_{depth}_3x")
    theirs = {ours(k.removeprefix(prefix)): shape for k, shape in theirs.items() if k.startswith(prefix)}
    with unfilled():
        net = VoVNet(f"V-{depth}-eSE")
    assert theirs == {k: tuple(v.shape) for k, v in net.state_dict().items()}


@pytest.mark.parametrize(("new", "old"), [("V-39-eSE", "V-39"), ("V-57-eSE", "V-57")])
def test_versions_differ_in_the_attention_alone(new, old):
    with unfilled():
        nets = VoVNet(new), VoVNet(old)
    tensors = [{k: v.shape for k, v in net.state_dict().items()} for net in nets]
    assert {k: v for k, v in tensors[0].items() if ".ese." not in k} == tensors[1]
    assert len(tensors[0]) - len(tensors[1]) == 2 * sum(VOVNETS[new].num_blocks)


@pytest.mark.parametrize(("size", "norm"), [("V-19-slim-eSE", "BN"), ("V-27", "SyncBN"), ("V-27", "FrozenBN")])
def test_shapes_and_gradients(size, norm):
    net = VoVNet(size, norm=norm, out_features=ALL).train()
    maps = net(torch.randn(2, 3, 64, 96))
    assert list(maps) == list(net.output_shape()) == list(ALL)
    for name, spec in net.output_shape().items():
        assert maps[name].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
    assert [spec.stride for spec in net.output_shape().values()] == [4, 4, 8, 16, 32]
    sum(x.square().mean() for x in maps.values()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("identity", [False, True])
def test_block_is_the_formula(identity):
    block = OSABlock(8, 4, 8, num_layers=3, ese=True, identity=identity, norm="").eval()
    x = torch.randn(2, 8, 6, 6)
    maps = [x]
    for layer in block.layers:
        maps.append(F.conv2d(maps[-1], layer.weight, padding=1).clamp(min=0))
    y = F.conv2d(torch.cat(maps, 1), block.concat.weight).clamp(min=0)
    attention = F.conv2d(y.mean((2, 3), keepdim=True), block.ese.fc.weight, block.ese.fc.bias)
    y = y * ((attention + 3).clamp(0, 6) / 6)
    assert torch.allclose(block(x), y + x if identity else y, atol=1e-6)


@pytest.mark.parametrize(("freeze_at", "frozen"), [(-1, ()), (0, ()), (1, ("stem",)), (2, ("stem", "stage2"))])
def test_freeze(freeze_at, frozen):
    net = VoVNet("V-19-slim-eSE", norm="BN", freeze_at=freeze_at)
    for name, part in net.named_children():
        assert any(p.requires_grad for p in part.parameters()) != (name in frozen)
        norms = {type(m) for m in part.modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))}
        assert norms == {FrozenBatchNorm2d if name in frozen else type(net.stage5[0].concat.norm)}


def test_unknown_names():
    with pytest.raises(ValueError, match=r"VoVNet\.size is 'V-40', but it must be one of: 'V-27'"):
        VoVNet("V-40")
    with pytest.raises(ValueError, match=r"VoVNet\.out_features is 'res3'"):
        VoVNet("V-27", out_features=["res3"])
