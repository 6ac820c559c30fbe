"""aim-uofa/AdelaiDet: Detectron2's backbones under their own names, and a head below `proposal_generator.fcos_head`.

A BN head keeps one batch norm for each level: `cls_tower.1.<level>.weight` there, `cls_tower.1.levels.<level>.weight` here.
"""

from __future__ import annotations

from .detectron2 import PYRAMID, RESNET
from .family import Family
from .mapping import Rule

_BODY = "backbone.bottom_up"
_HEAD = "proposal_generator.fcos_head"

# Networks whose names are the same here.
BODIES = tuple(
    Rule(f"{_BODY}.{name}", f"{_BODY}.{name}")
    for name in ("base_layer.{*}", "level{n}.{*}", "stem.stem_{n}/{*}", "stage{n}.{*}", "stem.{*}")
)


def _tower(name: str) -> tuple[Rule, ...]:
    theirs, ours = f"{_HEAD}.{name}.{{n}}", f"dense.head.{name}.{{n}}"
    return (
        Rule(f"{theirs}.offset.{{A}}", f"{ours}.offset.{{A}}"),
        Rule(f"{theirs}.conv.{{A}}", f"{ours}.{{A}}", beside=f"{ours}.offset.weight"),
        Rule(f"{theirs}.{{l}}.{{A}}", f"{ours}.levels.{{l}}.{{A}}"),
        Rule(f"{theirs}.{{A}}", f"{ours}.{{A}}"),
    )


HEAD = (
    *_tower("share_tower"),
    *_tower("cls_tower"),
    *_tower("bbox_tower"),
    Rule(f"{_HEAD}.cls_logits.{{A}}", "dense.head.cls_logits.{A}"),
    Rule(f"{_HEAD}.bbox_pred.{{A}}", "dense.head.bbox_pred.{A}"),
    Rule(f"{_HEAD}.ctrness.{{A}}", "dense.head.quality.{A}"),
    Rule(f"{_HEAD}.centerness.{{A}}", "dense.head.quality.{A}", legacy=True),  # its own converter leaves this name
    Rule(f"{_HEAD}.scales.{{n}}.scale", "dense.head.scales", stacked=(1,)),
)

ADELAIDET = Family(
    name="adelaidet",
    source="aim-uofa/AdelaiDet",
    rules=RESNET + BODIES + PYRAMID + HEAD,
    mark=f"{_HEAD}.",
    zoo="adelaidet",
    level_norms="own",
)
