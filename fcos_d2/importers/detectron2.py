"""facebookresearch/detectron2, `detectron2/modeling/meta_arch/fcos.py`: no scales, and BN heads whose levels share their affine.

Its moving average of positives is a plain number that no checkpoint keeps.
"""

from __future__ import annotations

from .family import Family
from .mapping import Rule

RULES = (
    Rule("backbone.bottom_up.res{k}.{i}.conv2_offset.{A}", "backbone.bottom_up.res{k}.{i}.conv2.offset.{A}"),
    Rule("backbone.{*}", "backbone.{*}"),
    Rule("head.cls_subnet.{n}.{l}.{A}", "dense.head.cls_tower.{n}.levels.{l}.{A}"),
    Rule("head.bbox_subnet.{n}.{l}.{A}", "dense.head.bbox_tower.{n}.levels.{l}.{A}"),
    Rule("head.cls_subnet.{n}.{A}", "dense.head.cls_tower.{n}.{A}"),
    Rule("head.bbox_subnet.{n}.{A}", "dense.head.bbox_tower.{n}.{A}"),
    Rule("head.cls_score.{A}", "dense.head.cls_logits.{A}"),
    Rule("head.bbox_pred.{A}", "dense.head.bbox_pred.{A}"),
    Rule("head.ctrness.{A}", "dense.head.quality.{A}"),
)

DETECTRON2 = Family(
    name="detectron2",
    source="facebookresearch/detectron2",
    rules=RULES,
    mark="head.ctrness.",
    zoo="detectron2",
    wrapper="model",
)
