"""Distances to the four sides of a box: raw map <-> ltrb <-> boxes, and the overlap of two ltrb.

Every ltrb pair is measured from the same location, so overlaps need no coordinates:
the intersection's width is min(l, l') + min(r, r').
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import one_of, option


@dataclass(frozen=True)
class LTRBCoder:
    """The only part that knows the unit of distances and how raw predictions become distances.

    Attributes:
        activation: "exp" (original FCOS) or "relu" (improved).
        unit: "pixel" (original) or "stride": distances divided by the location's nominal stride (improved).
        inference: of detections: "same" as in training, or "raw": no activation, so that distances may be negative and
            boxes inverted (FAD; fad_core/modeling/rpn/fcos/fad_fcos.py).
    """

    activation: str = option("relu", key="LTRB_ACTIVATION")
    unit: str = option("stride", key="LTRB_UNIT")
    inference: str = option("same", key="LTRB_INFERENCE")

    def __post_init__(self) -> None:
        one_of("LTRBCoder.activation", self.activation, ("exp", "relu"))
        one_of("LTRBCoder.unit", self.unit, ("pixel", "stride"))
        one_of("LTRBCoder.inference", self.inference, ("same", "raw"))

    def activate(self, raw_ltrb: Tensor) -> Tensor:
        """(..., 4) head output -> non-negative ltrb in the coder's unit, float32: what losses see."""
        raw_ltrb = raw_ltrb.float()
        return raw_ltrb.exp() if self.activation == "exp" else raw_ltrb.relu()

    def detected(self, raw_ltrb: Tensor) -> Tensor:
        """The same for detections: negative distances stay if `inference` is "raw"."""
        return raw_ltrb.float() if self.inference == "raw" else self.activate(raw_ltrb)

    def encode(self, xy: Tensor, stride: Tensor, boxes: Tensor) -> Tensor:
        """Distances from locations to the sides of boxes.

        Args:
            xy: (P, 2) locations, pixels.
            stride: (P,) nominal strides, pixels.
            boxes: (P, 4) xyxy, pixels.
        Returns:
            (P, 4) ltrb in the coder's unit; positive where the location is inside the box.
        """
        ltrb = torch.cat((xy - boxes[:, :2], boxes[:, 2:] - xy), dim=1)
        return ltrb / stride[:, None] if self.unit == "stride" else ltrb

    def decode(self, xy: Tensor, stride: Tensor, ltrb: Tensor) -> Tensor:
        """Inverse of `encode`: (P, 4) ltrb in the coder's unit -> (P, 4) xyxy, pixels."""
        if self.unit == "stride":
            ltrb = ltrb * stride[:, None]
        return torch.cat((xy - ltrb[:, :2], xy + ltrb[:, 2:]), dim=1)


@dataclass(frozen=True)
class IoURule:
    """Arithmetic of the overlap inside a loss; published versions differ in how they keep it finite.

    IoU = (I + offset) / max(U + offset + eps, floor);  GIoU = IoU - (E - U) / max(E + enclosing_eps, floor),
    with intersection I, union U and enclosing area E in squared units of the coder.

    Attributes:
        offset: 1.0 in the original FCOS, FCOS_PLUS and AdelaiDet: in stride units that is the area of one cell.
        eps: added to the union (fvcore, torchvision).
        enclosing_eps: added to the enclosing area.
        floor: smallest denominator, and smallest IoU under a logarithm (mmdetection).
    """

    offset: float = 0.0
    eps: float = 0.0
    enclosing_eps: float = 0.0
    floor: float = 0.0


IOU_RULES = {
    # fcos_core/layers/iou_loss.py; maskrcnn_benchmark/layers/iou_loss.py of FCOS_PLUS
    "plus_one": IoURule(offset=1.0, enclosing_eps=1e-7),
    # adet/utils/comm.py:compute_ious
    "plus_one_exact": IoURule(offset=1.0),
    # fvcore/nn/giou_loss.py, torchvision/ops/giou_loss.py
    "eps": IoURule(eps=1e-7, enclosing_eps=1e-7),
    # mmdet/structures/bbox/bbox_overlaps.py, mmdet/models/losses/iou_loss.py
    "floor": IoURule(floor=1e-6),
}


def ltrb_area(ltrb: Tensor) -> Tensor:
    """(P, 4) ltrb -> (P,) area in squared units."""
    near, far = ltrb.split(2, dim=1)  # two columns at a time are half of the operators, in the gradient a third
    width, height = (near + far).unbind(1)
    return width * height


def ltrb_iou(pred: Tensor, target: Tensor, rule: IoURule) -> tuple[Tensor, Tensor]:
    """Overlap of boxes seen from the same location.

    Args:
        pred, target: (P, 4) non-negative ltrb in one unit; P may be 0.
    Returns:
        (P,) IoU by the rule, and (P,) plain union area.
    """
    low = torch.minimum(pred, target)
    inter = ltrb_area(low)
    union = ltrb_area(pred) + ltrb_area(target) - inter
    extra = rule.offset + rule.eps
    denominator = union + extra if extra else union
    if rule.floor:
        denominator = denominator.clamp(min=rule.floor)
    return (inter + rule.offset if rule.offset else inter) / denominator, union
