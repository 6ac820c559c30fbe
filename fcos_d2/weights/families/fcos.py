"""tianzhi0549/FCOS (`fcos_core`, a fork of maskrcnn-benchmark) and the forks that kept its names.

Frozen batch norms divide by sqrt(running_var) without an epsilon there (fcos_core/layers/batch_norm.py): those of
ResNets and VoVNets. Batch norms of MobileNetV2 and HRNet are PyTorch's and add 1e-5, as ours do.
"""

from __future__ import annotations

from dataclasses import replace

from ..rules import Rule
from .bodies import hrnet, mobilenet, resnet, vovnet
from .family import Family

_BODY = "backbone.body."


def deformable(prefix: str) -> tuple[Rule, ...]:
    """Deformable convolutions of a ResNet, whose kernel lies beside the offsets there."""
    theirs, ours = f"{prefix}layer{{k}}.{{i}}.conv{{j}}", "backbone.bottom_up.res{k+1}.{i}.conv{j}"
    return (
        Rule(f"{theirs}.offset.{{A}}", f"{ours}.offset.{{A}}"),
        Rule(f"{theirs}.conv.weight", f"{ours}.weight", beside=f"{ours}.offset.weight"),
    )


def tower(theirs: str, ours: str) -> tuple[Rule, ...]:
    """A tower keeps its names, but for a deformable convolution's kernel; so does AdelaiDet's."""
    return (
        Rule(f"{theirs}.{{n}}.offset.{{A}}", f"{ours}.{{n}}.offset.{{A}}"),
        Rule(f"{theirs}.{{n}}.conv.{{A}}", f"{ours}.{{n}}.{{A}}", beside=f"{ours}.{{n}}.offset.weight"),
        Rule(f"{theirs}.{{n}}.{{A}}", f"{ours}.{{n}}.{{A}}"),
    )


def predictors(prefix: str) -> tuple[Rule, ...]:
    """What follows the towers."""
    return (
        Rule(f"{prefix}cls_logits.{{A}}", "dense.head.cls_logits.{A}"),
        Rule(f"{prefix}bbox_pred.{{A}}", "dense.head.bbox_pred.{A}"),
        Rule(f"{prefix}centerness.{{A}}", "dense.head.quality.{A}"),
        Rule(f"{prefix}scales.{{n}}.scale", "dense.head.scales", stacked=(1,)),
    )


def head(prefix: str) -> tuple[Rule, ...]:
    """Towers and predictors."""
    names = ("cls_tower", "bbox_tower")
    return (*(r for name in names for r in tower(f"{prefix}{name}", f"dense.head.{name}")), *predictors(prefix))


# C3..C5 are the stages 2..4 there.
PYRAMID = (
    Rule("backbone.fpn.fpn_inner{l}.{A}", "backbone.fpn_lateral{l+1}.{A}"),
    Rule("backbone.fpn.fpn_layer{l}.{A}", "backbone.fpn_output{l+1}.{A}"),
    Rule("backbone.fpn.top_blocks.{A}.{B}", "backbone.top_block.{A}.{B}"),
)
HRFPN = (
    Rule("backbone.fpn.reduction_conv.0.{A}", "backbone.reduction.{A}"),
    Rule("backbone.fpn.fpn_conv.{l}.{A}", "backbone.output.{l}.{A}"),
)
_RESNET = resnet(_BODY, "stem.", epsilon=0.0)
_HEAD = head("rpn.head.")

FCOS_CORE = Family(
    name="fcos_core",
    source="tianzhi0549/FCOS",
    rules=(*deformable(_BODY), *_RESNET, *mobilenet(_BODY), *PYRAMID, *_HEAD),
    mark="rpn.head.",
    zoo="fcos",
    wrapper="model",
    activations=(("exp", "pixel"), ("relu", "stride")),
    quality_on=("class", "box"),
    notes=("boxes of the training data ended at x + w - 1: the recipe's +1 conventions go with it",),
)
# What forked before the improvements.
ORIGINAL = replace(
    FCOS_CORE,
    rules=(*_RESNET, *mobilenet(_BODY), *PYRAMID, *_HEAD),
    activations=(("exp", "pixel"),),
    quality_on=("class",),
)
# yqyao/FCOS_PLUS has the same names and the same frozen batch norms.
FCOS_PLUS = replace(ORIGINAL, name="fcos_plus", source="yqyao/FCOS_PLUS", zoo="fcos_plus")
_VOVNET = (*vovnet(_BODY, epsilon=0.0), *ORIGINAL.rules)
VOVNET_FCOS = replace(ORIGINAL, name="vovnet", source="vov-net/VoVNet-FCOS", rules=_VOVNET, zoo="vovnet")
_HRNET = (*hrnet(_BODY), *_RESNET, *HRFPN, *PYRAMID, *_HEAD)
HRNET_FCOS = replace(ORIGINAL, name="hrnet", source="HRNet/HRNet-FCOS", rules=_HRNET, zoo="hrnet")
