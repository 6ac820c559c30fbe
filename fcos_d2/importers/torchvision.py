"""pytorch/vision, `torchvision/models/detection/fcos.py`: ResNet-50 with the stride in its 3x3, RGB, 91 channels by COCO id.

torchvision divides images by 255 and then by its deviations; our recipe "torchvision" has the same statistics in 0..255, so
the weights stay as they are. Its locations ("corner") belong to the recipe, too.
"""

from __future__ import annotations

from .family import Family
from .mapping import Rule

_BODY, _OURS = "backbone.body", "backbone.bottom_up"
_BLOCK, _RES = f"{_BODY}.layer{{k}}.{{i}}", f"{_OURS}.res{{k+1}}.{{i}}"
_CLASS, _BOX = "head.classification_head", "head.regression_head"

# COCO numbers its 80 classes 1..90 and leaves these out.
_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)

RULES = (
    Rule(f"{_BODY}.conv1.weight", f"{_OURS}.stem.conv1.weight"),
    Rule(f"{_BODY}.bn1.{{A}}", f"{_OURS}.stem.conv1.norm.{{A}}"),
    Rule(f"{_BLOCK}.conv{{j}}.weight", f"{_RES}.conv{{j}}.weight"),
    Rule(f"{_BLOCK}.bn{{j}}.{{A}}", f"{_RES}.conv{{j}}.norm.{{A}}"),
    Rule(f"{_BLOCK}.downsample.0.weight", f"{_RES}.shortcut.weight"),
    Rule(f"{_BLOCK}.downsample.1.{{A}}", f"{_RES}.shortcut.norm.{{A}}"),
    Rule("backbone.fpn.inner_blocks.{l}.0.{A}", "backbone.fpn_lateral{l+3}.{A}"),
    Rule("backbone.fpn.layer_blocks.{l}.0.{A}", "backbone.fpn_output{l+3}.{A}"),
    Rule("backbone.fpn.inner_blocks.{l}.{A}", "backbone.fpn_lateral{l+3}.{A}", legacy=True),
    Rule("backbone.fpn.layer_blocks.{l}.{A}", "backbone.fpn_output{l+3}.{A}", legacy=True),
    Rule("backbone.fpn.extra_blocks.{A}.{B}", "backbone.top_block.{A}.{B}"),
    Rule(f"{_CLASS}.conv.{{n}}.{{A}}", "dense.head.cls_tower.{n}.{A}"),
    Rule(f"{_CLASS}.cls_logits.{{A}}", "dense.head.cls_logits.{A}"),
    Rule(f"{_BOX}.conv.{{n}}.{{A}}", "dense.head.bbox_tower.{n}.{A}"),
    Rule(f"{_BOX}.bbox_reg.{{A}}", "dense.head.bbox_pred.{A}"),
    Rule(f"{_BOX}.bbox_ctrness.{{A}}", "dense.head.quality.{A}"),
)

TORCHVISION = Family(
    name="torchvision",
    source="pytorch/vision",
    rules=RULES,
    mark=f"{_CLASS}.",
    zoo="torchvision",
    ignored=(),
    origin="corner",
    stride_in_1x1=(False,),
    channels_of_classes=COCO_IDS,
)
