"""aim-uofa/AdelaiDet: Detectron2's backbones under their own names, and a head below `proposal_generator.fcos_head`.

A BN head keeps one batch norm for each level: `cls_tower.1.<level>.weight` there, `cls_tower.1.levels.<level>.weight` here.
"""

from __future__ import annotations

from .family import Family
from .mapping import Rule

_HEAD = "proposal_generator.fcos_head"

RULES = (
    Rule("backbone.bottom_up.res{k}.{i}.conv2_offset.{A}", "backbone.bottom_up.res{k}.{i}.conv2.offset.{A}"),
    Rule("backbone.{*}", "backbone.{*}"),
    Rule(f"{_HEAD}.scales.{{n}}.scale", "dense.head.scales", stacked=(1,)),
    Rule(f"{_HEAD}.ctrness.{{A}}", "dense.head.quality.{A}"),
    Rule(f"{_HEAD}.centerness.{{A}}", "dense.head.quality.{A}", legacy=True),  # as its own converter leaves it
    Rule(f"{_HEAD}.{{A}}.{{n}}.{{l}}.{{B}}", "dense.head.{A}.{n}.levels.{l}.{B}"),
    Rule(f"{_HEAD}.{{A}}.{{n}}.conv.{{B}}", "dense.head.{A}.{n}.{B}", beside="dense.head.{A}.{n}.offset.weight"),
    Rule(f"{_HEAD}.{{A}}.{{*}}", "dense.head.{A}.{*}"),
)

ADELAIDET = Family(
    name="adelaidet",
    source="aim-uofa/AdelaiDet",
    rules=RULES,
    mark=f"{_HEAD}.",
    zoo="adelaidet",
)
