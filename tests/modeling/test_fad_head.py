"""The head found by FAD, against the slow transcription under the published names."""

from __future__ import annotations

import math
from typing import Any

import pytest
import reference
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from scenes import detector, image_inputs, total
from torch import Tensor, nn

from fcos_d2.config.yacs import add_fcos_config
from fcos_d2.errors import FcosError
from fcos_d2.genotype import GENOTYPES, Genotype
from fcos_d2.importers import FAMILIES
from fcos_d2.modeling import FADHead, head
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.weights.rules import to_theirs

# One more with nodes of one and three edges, that every source, operation and length of cell is met.
OWN = Genotype((
    (("sinSep_conv_3x3_x3", 1), ("std_conv_3x3_x2+dil_conv_3x3", 0), ("std_conv_3x3", 1)), (("sinSep_conv_3x3", 2),),
))  # fmt: skip
PAIRS = {**GENOTYPES, "own": (OWN, GENOTYPES["other"][0])}
SMALL: dict[str, Any] = {"num_classes": 3, "in_channels": 32, "num_levels": 2, "edge_channels": 64}


def head_of(pair: str = "paper", **options: Any) -> FADHead:
    """Norms, scales and biases are anything."""
    text = pair if pair in GENOTYPES else "\n".join(map(str, PAIRS[pair]))
    made = FADHead(**{**SMALL, "genotype": text, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(-1, 2)
    return made


def features(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, 32, 6, 9, dtype=dtype), torch.randn(2, 32, 3, 5, dtype=dtype)]


@pytest.mark.parametrize("pair", PAIRS)
def test_maps_are_the_transcription(pair: str) -> None:
    """To rounding of the float32 in which scales are applied."""
    made, maps = head_of(pair).double(), features(torch.float64)
    state = {n.removeprefix("rpn.head."): v for n, v in published(made).items()}
    expected = reference.searched_maps(maps, state, *(genotype.nodes for genotype in PAIRS[pair]))
    with torch.no_grad():
        found = made(maps)
    for ours, theirs in zip(found, expected):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape and b.std() > 0.01
            torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-5)


def published(made: FADHead) -> dict[str, Tensor]:
    """The weights under the published names."""
    renamed = to_theirs({f"dense.head.{n}": v.detach() for n, v in made.state_dict().items()}, FAMILIES["fad"].rules)
    assert not renamed.left_over
    return renamed.tensors


def test_gradients_reach_everything() -> None:
    """The class branch alone trains the box tower and its reduction, too, since these feed it."""
    made = head_of()
    logits, raw_ltrb, quality = made(features())
    sum(x.square().mean() for x in logits).backward(retain_graph=True)
    trained = {n for n, p in made.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    own = {"bbox_pred.weight", "bbox_pred.bias", "quality.weight", "quality.bias", "scales"}
    assert {n for n, _ in made.named_parameters()} - trained == own
    sum(x.square().mean() for x in (*raw_ltrb, *quality)).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_the_box_branch_does_not_see_the_class_tower() -> None:
    made = head_of()
    _, raw_ltrb, quality = made(features())
    sum(x.square().mean() for x in (*raw_ltrb, *quality)).backward()
    assert all(p.grad is None for n, p in made.named_parameters() if n.startswith("cls_"))


def test_initial_weights_are_the_published_ones() -> None:
    """Reduction of the box tower and all towers as PyTorch makes them, the rest normal of deviation 0.01."""
    torch.manual_seed(0)
    made = FADHead()
    assert made.cls_logits.bias.allclose(torch.full((80,), -math.log(0.99 / 0.01)))
    for name in ("cls_logits", "bbox_pred", "quality", "cls_reduce"):
        conv = getattr(made, name)
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert name == "cls_logits" or not conv.bias.any()
    bound = 768**-0.5
    for tensor, most in ((made.box_reduce.weight, bound), (made.box_reduce.bias, bound)):
        assert 0.95 * most < tensor.abs().max().item() <= most
    for name, module in made.bbox_tower.named_modules():
        if isinstance(module, nn.Conv2d):
            most = module.weight[0].numel() ** -0.5
            assert 0.9 * most < module.weight.abs().max().item() <= most * 1.0001, name
        elif isinstance(module, nn.GroupNorm):
            assert (module.num_groups, module.eps) == (32, 1e-5)
            assert module.weight.eq(1).all() and not module.bias.any()
    assert made.scales.tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, (4_169_498, 1_935_552, 1_644_288)),
        ({"edge_channels": 128}, (6_097_498, 3_013_632, 2_494_208)),
        ({"genotype": "other"}, (5_169_242, 2_518_848, 2_060_736)),
    ],
)
def test_numbers_of_parameters(options: dict[str, Any], numbers: tuple[int, ...]) -> None:
    with unfilled():
        made = FADHead(**options)
    parts = made, made.bbox_tower, made.cls_tower
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == numbers
    assert sum(p.numel() for p in made.box_reduce.parameters()) == 196_864


def test_recomputing_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_LARGE", 0)
    one, other = head_of(), head_of(recompute=False)
    other.load_state_dict(one.state_dict())
    maps = features()
    for made in (one, other):
        sum(x.square().mean() for values in made(maps) for x in values).backward()
    for (name, a), b in zip(one.named_parameters(), other.parameters()):
        assert torch.equal(a.grad, b.grad), name


def test_keys_build_what_the_fields_say_and_it_trains(tmp_path: Any) -> None:
    """A genotype may be a file there."""
    path = tmp_path / "genotype.log"
    path.write_text("\n".join(map(str, GENOTYPES["other"])))
    cfg = get_cfg()
    add_fcos_config(cfg)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "FCOS", "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.FPN.IN_FEATURES = "build_fcos_resnet_fpn_backbone", ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32, 18, 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    fcos = cfg.MODEL.FCOS
    fcos.NUM_CLASSES, fcos.HEAD_NAME, fcos.FAD_GENOTYPE, fcos.FAD_CHANNELS = 3, "FADHead", str(path), 32
    fcos.FAD_CELLS = 1
    made = build_model(cfg)
    wanted = FADHead(num_classes=3, in_channels=32, edge_channels=32, num_cells=1, genotype="other")
    assert repr(made.dense.head) == repr(wanted)
    boxes = torch.tensor([[8.0, 8, 60, 50], [20, 20, 30, 32]])
    losses = made([image_inputs((160, 192), boxes, torch.tensor([1, 2]), height=160, width=192)])
    total(losses).backward()
    for name, parameter in made.dense.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_negative_distances_are_reported() -> None:
    """Without relu a box may be inverted by up to a pixel of the network input, and none by more."""
    torch.manual_seed(0)
    made = detector("fad").eval()
    with torch.no_grad():
        made.dense.head.cls_logits.bias.fill_(0.0)
        made.dense.head.bbox_pred.weight.mul_(100)
        made.dense.head.bbox_pred.bias.zero_()
        made.dense.head.scales.fill_(0.05)
        boxes = made.found([image_inputs((64, 96))])[0].pred_boxes.tensor
    side = boxes[:, 2:] - boxes[:, :2]
    assert side.min() >= -1 and (side < 0).any() and (side > 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge_channels": 48}, "FADHead.edge_channels is 48, but it must be a multiple of 32"),
        ({"edge_channels": 0}, "edge_channels is 0"),
        ({"num_cells": 0}, "num_cells is 0"),
        ({"in_channels": 48}, "in_channels is 48, but GroupNorm needs a multiple of 32"),
        ({"quality_on": "cls"}, "quality_on is 'cls'"),
        ({"genotype": "genotype.log"}, r"FADHead.genotype is 'genotype.log', but it must be one of 'paper', 'other'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FADHead(**{**SMALL, **options})
    with pytest.raises(FcosError, match=r"^Line 1 of FADHead\.genotype is not of the form"):
        FADHead(**SMALL, genotype="Genotype()\nGenotype()")
