"""aim-uofa/AdelaiDet: Detectron2's backbones under their own names, and a head below `proposal_generator.fcos_head`.

A BN head keeps one batch norm for each level: `cls_tower.1.<level>.weight` there, `cls_tower.1.levels.<level>.weight`
here.
"""

from __future__ import annotations

from ..rules import Rule
from .bodies import detectron2_resnet, dla, mobilenet, vovnet
from .detectron2 import PYRAMID
from .family import Family
from .fcos import predictors, tower

_BODY = "backbone.bottom_up."
_HEAD = "proposal_generator.fcos_head."


def _tower(name: str) -> tuple[Rule, ...]:
    theirs, ours = f"{_HEAD}{name}", f"dense.head.{name}"
    return (Rule(f"{theirs}.{{n}}.{{l}}.{{A}}", f"{ours}.{{n}}.levels.{{l}}.{{A}}"), *tower(theirs, ours))


HEAD = (
    *(rule for name in ("share_tower", "cls_tower", "bbox_tower") for rule in _tower(name)),
    Rule(f"{_HEAD}ctrness.{{A}}", "dense.head.quality.{A}"),
    *predictors(_HEAD),  # "centerness" among them is what its converter of tianzhi0549/FCOS's files leaves
)

ADELAIDET = Family(
    name="adelaidet",
    source="aim-uofa/AdelaiDet",
    rules=(*vovnet(_BODY), *detectron2_resnet(_BODY), *dla(_BODY), *mobilenet(_BODY), *PYRAMID, *HEAD),
    mark=_HEAD,
    zoo="adelaidet",
    level_norms="own",
)
