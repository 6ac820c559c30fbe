"""Whether two answers to the same question are the same, and by how much they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from fcos_d2.data.mapper import PIXEL_TOLERANCE
from projects_tools.bench.workload import Setting, truths


@dataclass(frozen=True)
class Agreement:
    """What comparing two answers gave.

    Attributes:
        agrees: within the tolerance.
        text: by how much they differ.
    """

    agrees: bool
    text: str


# Detectron2 and torchvision compare areas as 1e8 - area in float32, whose neighbours are 8 square pixels apart.
AREA_TOLERANCE = 8.0
LOSS_TOLERANCE = 1e-4  # relative
GRADIENT_TOLERANCE = 1e-4  # of the largest gradient
BOX_TOLERANCE, SCORE_TOLERANCE = 1e-3, 1e-5  # pixels; decoding of equal maps
MODEL_BOX_TOLERANCE, MODEL_SCORE_TOLERANCE = 0.1, 1e-3  # the same after a whole network in float32
BF16_MATCH = 0.9  # share of detections that must have a partner of IoU 0.5 and the same class

TOLERANCES = {
    "assign": f"the same positives, and boxes whose areas differ by at most {AREA_TOLERANCE:g} px²",
    "loss": f"losses to {LOSS_TOLERANCE:g} (relative), gradients to {GRADIENT_TOLERANCE:g} of the largest",
    "decode": f"the same set, boxes to {BOX_TOLERANCE:g} px, scores to {SCORE_TOLERANCE:g}",
    "forward": f"the same set, boxes to {MODEL_BOX_TOLERANCE:g} px, scores to {MODEL_SCORE_TOLERANCE:g}; in bf16 "
    f"{BF16_MATCH:.0%} of the detections have a partner of IoU 0.5 and the same class",
    "data": f"the same pixels; in the mode close pixels within {PIXEL_TOLERANCE} of 255",
    "train": f"losses and norms of gradients to {10 * LOSS_TOLERANCE:g} (relative), in bf16 losses to 0.05",
}


def compare(setting: Setting, ours: Any, theirs: Any) -> Agreement:
    """Compare two answers in the form that `peers.Job.answer` gives."""
    if setting.suite == "assign":
        return _assignments(setting, ours, theirs)
    if setting.suite == "loss":
        return _losses(ours, theirs, LOSS_TOLERANCE, GRADIENT_TOLERANCE)
    if setting.suite == "train":
        if "bf16" in setting.mode:
            return _losses((ours[0], []), (theirs[0], []), 0.05, 0.0)
        return _losses(ours, theirs, 10 * LOSS_TOLERANCE, 10 * GRADIENT_TOLERANCE)
    if setting.suite == "data":
        return _images(ours, theirs, PIXEL_TOLERANCE if setting.mode == "close" else 0)
    if "bf16" in setting.mode:
        return _partners(ours, theirs)
    if setting.suite == "forward":
        return _detections(ours, theirs, MODEL_BOX_TOLERANCE, MODEL_SCORE_TOLERANCE)
    return _detections(ours, theirs, BOX_TOLERANCE, SCORE_TOLERANCE)


def _assignments(setting: Setting, ours: Tensor, theirs: Tensor) -> Agreement:
    if ours.shape != theirs.shape:
        return Agreement(False, f"{tuple(ours.shape)} against {tuple(theirs.shape)} locations")
    other = int(((ours < 0) != (theirs < 0)).sum())
    boxes = torch.cat([t.boxes for t in truths(setting)]).double()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    differ = (ours != theirs) & (ours >= 0) & (theirs >= 0)
    gap = (area[ours[differ]] - area[theirs[differ]]).abs()
    worst = float(gap.max()) if len(gap) else 0.0
    text = f"{other} locations positive for one only; {len(gap)} with another box, areas within {worst:.3g} px²"
    return Agreement(other == 0 and worst <= AREA_TOLERANCE, text)


def _losses(ours: Any, theirs: Any, loss_tolerance: float, gradient_tolerance: float) -> Agreement:
    (losses, grads), (other_losses, other_grads) = ours, theirs
    if losses.keys() != other_losses.keys() or len(grads) != len(other_grads):
        return Agreement(False, f"losses {sorted(losses)} against {sorted(other_losses)}")
    loss = max(abs(losses[k] - other_losses[k]) / max(abs(other_losses[k]), 1e-12) for k in losses)
    # Losses of one kind share their scale, so each kind of map is compared with its own largest gradient.
    gap = 0.0
    for kind in range(0, len(grads), 5):
        some, others = grads[kind : kind + 5], other_grads[kind : kind + 5]
        largest = max(float(g.abs().max()) for g in others)
        gap = max(gap, *(float((a - b).abs().max()) / max(largest, 1e-12) for a, b in zip(some, others)))
    text = f"losses within {loss:.1e}" + (f", gradients within {gap:.1e}" if grads else "")
    return Agreement(loss <= loss_tolerance and gap <= gradient_tolerance, text)


def _detections(ours: Any, theirs: Any, box_tolerance: float, score_tolerance: float) -> Agreement:
    """The same set, whatever the order of nearly equal scores."""
    worst_box = worst_score = 0.0
    unmatched = total = 0
    for (boxes, scores, classes), (other_boxes, other_scores, other_classes) in zip(ours, theirs):
        total += len(other_boxes)
        if len(boxes) == 0 or len(other_boxes) == 0:
            unmatched += abs(len(boxes) - len(other_boxes))
            continue
        gap = (boxes[:, None].double() - other_boxes[None].double()).abs().amax(dim=2)
        gap = gap.masked_fill(classes[:, None] != other_classes[None], float("inf"))
        score_gap = (scores[:, None] - other_scores[None]).abs()
        close = (gap <= box_tolerance) & (score_gap <= score_tolerance)
        lost = int((~close.any(dim=1)).sum()), int((~close.any(dim=0)).sum())
        unmatched += max(lost)
        nearest = torch.where(close, gap, float("inf")).argmin(dim=1)
        rows = close.any(dim=1).nonzero().squeeze(1)
        if len(rows):
            worst_box = max(worst_box, float(gap[rows, nearest[rows]].max()))
            worst_score = max(worst_score, float(score_gap[rows, nearest[rows]].max()))
    text = f"{total - unmatched} of {total} detections equal, within {worst_box:.1e} px and {worst_score:.1e}"
    return Agreement(unmatched == 0 and total > 0, text)


def _partners(ours: Any, theirs: Any) -> Agreement:
    found = total = 0
    for (boxes, _, classes), (other_boxes, _, other_classes) in zip(ours, theirs):
        total += len(other_boxes)
        if len(boxes) and len(other_boxes):
            near = (box_iou(other_boxes.float(), boxes.float()) >= 0.5) & (other_classes[:, None] == classes[None])
            found += int(near.any(dim=1).sum())
    return Agreement(total > 0 and found >= BF16_MATCH * total, f"{found} of {total} detections have a partner")


def _images(ours: list[Tensor], theirs: list[Tensor], tolerance: int) -> Agreement:
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return Agreement(False, "images of other sizes")
    worst = differing = total = 0
    for image, other in zip(ours, theirs):
        gap = (image.int() - other.int()).abs()
        worst = max(worst, int(gap.max()))
        differing += int((gap > 0).sum())
        total += gap.numel()
    return Agreement(worst <= tolerance, f"pixels within {worst} of 255, {differing / total:.2%} of them differ")
