"""Lausannen/NAS-FCOS: another fork of maskrcnn-benchmark, split into `encoder` and `decoder`.

Frozen batch norms of its ResNets have no epsilon; those of its pyramid and of MobileNetV2 have PyTorch's 1e-5.
"""

from __future__ import annotations

from ..rules import Rule
from .bodies import conv_norm, mobilenet, resnet
from .family import Family
from .fcos import head

_FPN, _HEAD = "decoder.fpn.", "decoder.rpn.head."


def _cell(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{theirs}.dcn.0.conv_offset_mask.{{A}}", f"{ours}.0.offset.{{A}}"),
        Rule(f"{theirs}.dcn.0.{{A}}", f"{ours}.0.{{A}}"),
        Rule(f"{theirs}.dcn.1.{{A}}", f"{ours}.0.norm.{{A}}"),
    )


PYRAMID = (
    *conv_norm(f"{_FPN}adapt{{l+2}}.0", f"{_FPN}adapt{{l+2}}.1", "backbone.adapt.{l}"),
    *_cell(f"{_FPN}_ops.{{c}}.0", "backbone.cells.{c}.first"),
    *_cell(f"{_FPN}_ops.{{c}}.1", "backbone.cells.{c}.second"),
    Rule(f"{_FPN}_ops.{{c}}.2.conv1x1.0.{{A}}", "backbone.cells.{c}.norm.{A}"),
    Rule(f"{_FPN}_ops.{{c}}.2.conv1x1.2.{{A}}", "backbone.cells.{c}.conv.{A}"),
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
