"""Lausannen/NAS-FCOS: another fork of maskrcnn-benchmark, split into `encoder` and `decoder`.

Frozen batch norms of its ResNets have no epsilon; those of its pyramid and of MobileNetV2 have PyTorch's 1e-5.
"""

from __future__ import annotations

from ..rules import Rule
from .bodies import conv_norm, mobilenet, resnet
from .family import Family
from .fcos import head

_FPN, _HEAD = "decoder.fpn.", "decoder.rpn.head."


_PARTS = (
    *(("0.dcn.0.conv_offset_mask", "first.0.offset"), ("1.dcn.0.conv_offset_mask", "second.0.offset")),
    *(("0.dcn.0", "first.0"), ("1.dcn.0", "second.0"), ("2.conv1x1.2", "conv")),
    *(("0.dcn.1", "first.0.norm"), ("1.dcn.1", "second.0.norm"), ("2.conv1x1.0", "norm")),
)
PYRAMID = (
    *conv_norm(f"{_FPN}adapt{{l+2}}.0", f"{_FPN}adapt{{l+2}}.1", "backbone.adapt.{l}"),
    *(Rule(f"{_FPN}_ops.{{c}}.{theirs}.{{A}}", f"backbone.cells.{{c}}.{ours}.{{A}}") for theirs, ours in _PARTS),
    Rule(f"{_FPN}top_blocks.{{A}}.{{B}}", "backbone.top_block.{A}.{B}"),
)


def _branch(theirs: str, ours: str) -> tuple[Rule, ...]:
    layer, here = f"{_HEAD}{theirs}.{{i}}", f"dense.head.{ours}.{{i}}"
    offset = f"{here}.conv.offset.weight"
    return (
        Rule(f"{layer}.dcn.0.conv_offset_mask.{{A}}", f"{here}.conv.offset.{{A}}"),
        Rule(f"{layer}.dcn.0.{{A}}", f"{here}.conv.{{A}}", beside=offset),
        Rule(f"{layer}.dcn.1.{{A}}", f"{here}.norm.{{A}}", beside=offset),
        Rule(f"{layer}.0.{{A}}", f"{here}.conv.{{A}}"),
        Rule(f"{layer}.1.{{A}}", f"{here}.norm.{{A}}"),
    )


NAS_FCOS = Family(
    name="nas_fcos",
    source="Lausannen/NAS-FCOS",
    rules=(
        *resnet("encoder.body.", "stem.", epsilon=0.0),
        *mobilenet("encoder.body."),
        *PYRAMID,
        *_branch("_cls_head_global_ops", "cls_tower"),
        *_branch("_reg_head_global_ops", "bbox_tower"),
        *head(_HEAD),
    ),
    mark=_HEAD,
    zoo="nas_fcos",
    wrapper="model",
    ignored=(f"{_FPN}adapt1.{{*}}",),  # of C2, which no cell reads
    activations=(("exp", "pixel"),),
    quality_on=("class",),
)
