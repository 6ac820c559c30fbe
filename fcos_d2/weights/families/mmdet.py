"""open-mmlab/mmdetection: `backbone`, `neck` and `bbox_head`; tower convolutions are counted, not their layers.

Its batch norms add 1e-5 and count batches also where they are frozen; only the ResNet below a NAS-FCOS neck has epsilon
0. Scales have no dimension. P6 and P7 are the fourth and fifth of `fpn_convs`.
"""

from __future__ import annotations

from ..rules import Rule
from .bodies import conv_norm, given, hrnet, resnet
from .family import Family

_BLOCK, _RES = "backbone.layer{k}.{i}.conv{j}", "backbone.bottom_up.res{k+1}.{i}.conv{j}"

DEFORMABLE = (
    Rule(f"{_BLOCK}.conv_offset.{{A}}", f"{_RES}.offset.{{A}}"),
    Rule(f"{_BLOCK}_offset.{{A}}", f"{_RES}.offset.{{A}}", legacy=True),
)
PYRAMID = (
    Rule("neck.lateral_convs.{l}.conv.{A}", "backbone.fpn_lateral{l+3}.{A}"),
    Rule("neck.fpn_convs.3.conv.{A}", "backbone.top_block.p6.{A}"),
    Rule("neck.fpn_convs.4.conv.{A}", "backbone.top_block.p7.{A}"),
    Rule("neck.fpn_convs.{l}.conv.{A}", "backbone.fpn_output{l+3}.{A}"),
)
HRFPN = (
    Rule("neck.reduction_conv.conv.{A}", "backbone.reduction.{A}"),
    Rule("neck.fpn_convs.{l}.conv.{A}", "backbone.output.{l}.{A}", given="neck.reduction_conv.conv.weight"),
)

# NAS-FCOS; names of its cells in the order of ours.
_CELLS = ("c22_1", "c22_2", "c32", "c02", "c42", "c36", "c61")


_PARTS = (
    *(("input1_conv.conv.conv_offset", "first.0.offset"), ("input2_conv.conv.conv_offset", "second.0.offset")),
    *(("input1_conv.conv", "first.0"), ("input2_conv.conv", "second.0"), ("out_conv.conv", "conv")),
    *(("input1_conv.bn", "first.0.norm"), ("input2_conv.bn", "second.0.norm"), ("out_conv.bn", "norm")),
)
_CELL_RULES = tuple(
    Rule(f"neck.fpn.{cell}.{theirs}.{{A}}", f"backbone.cells.{c}.{ours}.{{A}}")
    for c, cell in enumerate(_CELLS)
    for theirs, ours in _PARTS
)


NAS_PYRAMID = (
    *given("neck.adapt_convs.0.conv.weight", resnet("backbone.", epsilon=0.0), beside="backbone.adapt.0.weight"),
    *conv_norm("neck.adapt_convs.{l}.conv", "neck.adapt_convs.{l}.bn", "backbone.adapt.{l}"),
    *_CELL_RULES,
    Rule("neck.extra_downsamples.0.conv.{A}", "backbone.top_block.p6.{A}", beside="backbone.adapt.0.weight"),
    Rule("neck.extra_downsamples.1.conv.{A}", "backbone.top_block.p7.{A}", beside="backbone.adapt.0.weight"),
)


def _tower(theirs: str, ours: str) -> tuple[Rule, ...]:
    theirs, ours = f"bbox_head.{theirs}.{{n}}", f"dense.head.{ours}."
    return (
        *given(
            "bbox_head.cls_convs.0.conv.conv_offset.weight",  # a searched head, whose layers are counted here, too
            (
                Rule(f"{theirs}.conv.conv_offset.{{A}}", f"{ours}{{n}}.conv.offset.{{A}}"),
                Rule(f"{theirs}.conv.{{A}}", f"{ours}{{n}}.conv.{{A}}"),
                Rule(f"{theirs}.gn.{{A}}", f"{ours}{{n}}.norm.{{A}}"),
            ),
        ),
        Rule(f"{theirs}.gn.{{A}}", f"{ours}{{3n+1}}.{{A}}"),
        Rule(f"{theirs}.conv.conv_offset.{{A}}", f"{ours}{{3n}}.offset.{{A}}"),
        Rule(f"{theirs}.conv_offset.{{A}}", f"{ours}{{3n}}.offset.{{A}}", legacy=True),
        Rule(f"{theirs}.conv.{{A}}", f"{ours}{{3n}}.{{A}}"),
    )


_PREDICTORS = {"cls": "cls_logits", "reg": "bbox_pred", "centerness": "quality"}
HEAD = (
    *_tower("cls_convs", "cls_tower"),
    *_tower("reg_convs", "bbox_tower"),
    *(Rule(f"bbox_head.conv_{theirs}.{{A}}", f"dense.head.{ours}.{{A}}") for theirs, ours in _PREDICTORS.items()),
    *(Rule(f"bbox_head.fcos_{a}.{{A}}", f"dense.head.{b}.{{A}}", legacy=True) for a, b in _PREDICTORS.items()),
    Rule("bbox_head.scales.{n}.scale", "dense.head.scales", stacked=()),
)

MMDET = Family(
    name="mmdet",
    source="open-mmlab/mmdetection",
    rules=(*hrnet("backbone."), *DEFORMABLE, *NAS_PYRAMID, *resnet("backbone."), *HRFPN, *PYRAMID, *HEAD),
    mark="bbox_head.",
    zoo="mmdet",
    wrapper="state_dict",
    beside={"meta": {}},
    ignored=(),
    counters=True,
    tower_bias=None,
    activations=(("exp", "pixel"), ("relu", "stride")),
    quality_on=("class", "box"),
)
