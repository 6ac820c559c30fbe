"""pytorch/vision, `torchvision/models/detection/fcos.py`: stride in the 3x3 of ResNet-50, RGB, 91 channels by COCO id.

torchvision divides images by 255 and then by its deviations; our recipe "torchvision" has the same statistics in
0..255, so the weights stay as they are. Its locations ("corner") belong to the recipe, too.
"""

from __future__ import annotations

from ..rules import Rule
from .bodies import resnet
from .family import Family

_FPN, _CLASS, _BOX = "backbone.fpn.", "head.classification_head.", "head.regression_head."

# COCO numbers its 80 classes 1..90 and leaves these out.
_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)

PYRAMID = (
    Rule(f"{_FPN}inner_blocks.{{l}}.0.{{A}}", "backbone.fpn_lateral{l+3}.{A}"),
    Rule(f"{_FPN}layer_blocks.{{l}}.0.{{A}}", "backbone.fpn_output{l+3}.{A}"),
    Rule(f"{_FPN}inner_blocks.{{l}}.{{A}}", "backbone.fpn_lateral{l+3}.{A}", legacy=True),
    Rule(f"{_FPN}layer_blocks.{{l}}.{{A}}", "backbone.fpn_output{l+3}.{A}", legacy=True),
    Rule(f"{_FPN}extra_blocks.{{A}}.{{B}}", "backbone.top_block.{A}.{B}"),
)
HEAD = (
    Rule(f"{_CLASS}conv.{{n}}.{{A}}", "dense.head.cls_tower.{n}.{A}"),
    Rule(f"{_CLASS}cls_logits.{{A}}", "dense.head.cls_logits.{A}"),
    Rule(f"{_BOX}conv.{{n}}.{{A}}", "dense.head.bbox_tower.{n}.{A}"),
    Rule(f"{_BOX}bbox_reg.{{A}}", "dense.head.bbox_pred.{A}"),
    Rule(f"{_BOX}bbox_ctrness.{{A}}", "dense.head.quality.{A}"),
)

TORCHVISION = Family(
    name="torchvision",
    source="pytorch/vision",
    rules=(*resnet("backbone.body."), *PYRAMID, *HEAD),
    mark=_CLASS,
    zoo="torchvision",
    ignored=(),
    origin="corner",
    stride_in_1x1=(False,),
    channels_of_classes=COCO_IDS,
    notes=("classes: where there are 91, the channel is the COCO id; num_classes=80 keeps COCO's 80 in order",),
)


def coco_names(num_classes: int) -> list[str] | None:
    """Names of COCO's classes by channel: of torchvision's 91 ("N/A" where no class has the id), or of the 80."""
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    names = {row["id"]: row["name"] for row in COCO_CATEGORIES if row["isthing"]}
    if num_classes == len(COCO_IDS):
        return [names[i] for i in COCO_IDS]
    return [names.get(i, "N/A") for i in range(num_classes)] if num_classes == 91 else None
