"""facebookresearch/detectron2, `detectron2/modeling/meta_arch/fcos.py`: no scales; levels of BN heads share an affine.

Its moving average of positives is a plain number that no checkpoint keeps.
"""

from __future__ import annotations

from ..rules import Rule
from .bodies import detectron2_resnet
from .family import Family

PYRAMID = (
    Rule("backbone.fpn_lateral{l}.{*}", "backbone.fpn_lateral{l}.{*}"),
    Rule("backbone.fpn_output{l}.{*}", "backbone.fpn_output{l}.{*}"),
    Rule("backbone.top_block.{A}.{B}", "backbone.top_block.{A}.{B}"),
)


def _tower(theirs: str, ours: str) -> tuple[Rule, ...]:
    theirs, ours = f"head.{theirs}.{{n}}", f"dense.head.{ours}.{{n}}"
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return (
        *(Rule(f"{theirs}.{{l}}.{name}", f"{ours}.levels.{{l}}.{name}") for name in statistics),
        Rule(f"{theirs}.{{A}}", f"{ours}.{{A}}"),
    )


HEAD = (
    *_tower("cls_subnet", "cls_tower"),
    *_tower("bbox_subnet", "bbox_tower"),
    Rule("head.cls_score.{A}", "dense.head.cls_logits.{A}"),
    Rule("head.bbox_pred.{A}", "dense.head.bbox_pred.{A}"),
    Rule("head.ctrness.{A}", "dense.head.quality.{A}"),
)

DETECTRON2 = Family(
    name="detectron2",
    source="facebookresearch/detectron2",
    rules=(*detectron2_resnet("backbone.bottom_up."), *PYRAMID, *HEAD),
    mark="head.ctrness.",
    zoo="detectron2",
    wrapper="model",
    level_norms="shared",
)
