"""open-mmlab/mmdetection: `backbone`, `neck` and `bbox_head`; tower convolutions are counted, not their layers.

Its batch norms add 1e-5 and count batches also where they are frozen. Scales have no dimension. P6 and P7 are the fourth and
fifth of `fpn_convs`.
"""

from __future__ import annotations

from .family import Family
from .mapping import Rule

_OURS = "backbone.bottom_up"
_BLOCK, _RES = "backbone.layer{k}.{i}", f"{_OURS}.res{{k+1}}.{{i}}"

RESNET = (
    Rule("backbone.conv1.weight", f"{_OURS}.stem.conv1.weight"),
    Rule("backbone.bn1.{A}", f"{_OURS}.stem.conv1.norm.{{A}}"),
    Rule(f"{_BLOCK}.bn{{j}}.{{A}}", f"{_RES}.conv{{j}}.norm.{{A}}"),
    Rule(f"{_BLOCK}.downsample.0.weight", f"{_RES}.shortcut.weight"),
    Rule(f"{_BLOCK}.downsample.1.{{A}}", f"{_RES}.shortcut.norm.{{A}}"),
    Rule(f"{_BLOCK}.conv{{j}}.conv_offset.{{A}}", f"{_RES}.conv{{j}}.offset.{{A}}"),
    Rule(f"{_BLOCK}.conv{{j}}_offset.{{A}}", f"{_RES}.conv{{j}}.offset.{{A}}", legacy=True),
    Rule(f"{_BLOCK}.conv{{j}}.weight", f"{_RES}.conv{{j}}.weight"),
)
PYRAMID = (
    Rule("neck.lateral_convs.{l}.conv.{A}", "backbone.fpn_lateral{l+3}.{A}"),
    Rule("neck.fpn_convs.3.conv.{A}", "backbone.top_block.p6.{A}"),
    Rule("neck.fpn_convs.4.conv.{A}", "backbone.top_block.p7.{A}"),
    Rule("neck.fpn_convs.{l}.conv.{A}", "backbone.fpn_output{l+3}.{A}"),
)


def _tower(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Rule(f"bbox_head.{theirs}.{{n}}.gn.{{A}}", f"dense.head.{ours}.{{3n+1}}.{{A}}"),
        Rule(f"bbox_head.{theirs}.{{n}}.conv.conv_offset.{{A}}", f"dense.head.{ours}.{{3n}}.offset.{{A}}"),
        Rule(f"bbox_head.{theirs}.{{n}}.conv_offset.{{A}}", f"dense.head.{ours}.{{3n}}.offset.{{A}}", legacy=True),
        Rule(f"bbox_head.{theirs}.{{n}}.conv.{{A}}", f"dense.head.{ours}.{{3n}}.{{A}}"),
    )


HEAD = (
    Rule("bbox_head.scales.{n}.scale", "dense.head.scales", stacked=()),
    *_tower("cls_convs", "cls_tower"),
    *_tower("reg_convs", "bbox_tower"),
    Rule("bbox_head.conv_cls.{A}", "dense.head.cls_logits.{A}"),
    Rule("bbox_head.conv_reg.{A}", "dense.head.bbox_pred.{A}"),
    Rule("bbox_head.conv_centerness.{A}", "dense.head.quality.{A}"),
    Rule("bbox_head.fcos_cls.{A}", "dense.head.cls_logits.{A}", legacy=True),
    Rule("bbox_head.fcos_reg.{A}", "dense.head.bbox_pred.{A}", legacy=True),
    Rule("bbox_head.fcos_centerness.{A}", "dense.head.quality.{A}", legacy=True),
)
RULES = RESNET + PYRAMID + HEAD

MMDET = Family(
    name="mmdet",
    source="open-mmlab/mmdetection",
    rules=RULES,
    mark="bbox_head.",
    zoo="mmdet",
    wrapper="state_dict",
    beside={"meta": {}},
    ignored=(),
    counters=True,
    activations=(("exp", "pixel"), ("relu", "stride")),
    quality_on=("class", "box"),
)
