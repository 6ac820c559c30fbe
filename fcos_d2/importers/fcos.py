"""tianzhi0549/FCOS (`fcos_core`, a fork of maskrcnn-benchmark) and the forks that kept its names.

Its frozen batch norms divide by sqrt(running_var) without an epsilon (fcos_core/layers/batch_norm.py); trained batch norms,
those of MobileNetV2, add PyTorch's 1e-5.
"""

from __future__ import annotations

from .family import Family
from .mapping import Rule

_BODY, _OURS = "backbone.body", "backbone.bottom_up"
_BLOCK, _RES = f"{_BODY}.layer{{k}}.{{i}}", f"{_OURS}.res{{k+1}}.{{i}}"

RESNET = (
    Rule(f"{_BODY}.stem.conv1.weight", f"{_OURS}.stem.conv1.weight"),
    Rule(f"{_BODY}.stem.bn1.{{*}}", f"{_OURS}.stem.conv1.norm.{{*}}", epsilon=0.0),
    Rule(f"{_BLOCK}.bn{{j}}.{{*}}", f"{_RES}.conv{{j}}.norm.{{*}}", epsilon=0.0),
    Rule(f"{_BLOCK}.downsample.0.weight", f"{_RES}.shortcut.weight"),
    Rule(f"{_BLOCK}.downsample.1.{{*}}", f"{_RES}.shortcut.norm.{{*}}", epsilon=0.0),
    Rule(f"{_BLOCK}.conv{{j}}.offset.{{A}}", f"{_RES}.conv{{j}}.offset.{{A}}"),
    Rule(f"{_BLOCK}.conv{{j}}.conv.weight", f"{_RES}.conv{{j}}.weight", beside=f"{_RES}.conv{{j}}.offset.weight"),
    Rule(f"{_BLOCK}.conv{{j}}.weight", f"{_RES}.conv{{j}}.weight"),
)
# C3..C5 are the stages 2..4 there.
PYRAMID = (
    Rule("backbone.fpn.fpn_inner{l}.{A}", "backbone.fpn_lateral{l+1}.{A}"),
    Rule("backbone.fpn.fpn_layer{l}.{A}", "backbone.fpn_output{l+1}.{A}"),
    Rule("backbone.fpn.top_blocks.{A}.{B}", "backbone.top_block.{A}.{B}"),
)


def tower(name: str) -> tuple[Rule, ...]:
    """A tower keeps its names; where its last convolution is deformable, the kernel lies beside the offsets there."""
    theirs, ours = f"rpn.head.{name}.{{n}}", f"dense.head.{name}.{{n}}"
    return (
        Rule(f"{theirs}.offset.{{A}}", f"{ours}.offset.{{A}}"),
        Rule(f"{theirs}.conv.{{A}}", f"{ours}.{{A}}", beside=f"{ours}.offset.weight"),
        Rule(f"{theirs}.{{A}}", f"{ours}.{{A}}"),
    )


HEAD = (
    *tower("cls_tower"),
    *tower("bbox_tower"),
    Rule("rpn.head.cls_logits.{A}", "dense.head.cls_logits.{A}"),
    Rule("rpn.head.bbox_pred.{A}", "dense.head.bbox_pred.{A}"),
    Rule("rpn.head.centerness.{A}", "dense.head.quality.{A}"),
    Rule("rpn.head.scales.{n}.scale", "dense.head.scales", stacked=(1,)),
)
RULES = RESNET + PYRAMID + HEAD

FCOS_CORE = Family(
    name="fcos_core",
    source="tianzhi0549/FCOS",
    rules=RULES,
    mark="rpn.head.",
    zoo="fcos",
    wrapper="model",
    activations=(("exp", "pixel"), ("relu", "stride")),
    quality_on=("class", "box"),
)
