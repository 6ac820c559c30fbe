"""Non-maximum suppression within groups (the classes of each image), equal to one suppression for each group.

On the CPU torchvision's `batched_nms` either runs over all boxes at once, in quadratic time, or over one group at a
time, searching all boxes for it. Here boxes are sorted by group once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

# Pixels beyond which all is one place on a GPU.
_FAR = 2.0**24


def grouped_nms(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float) -> Tensor:
    """Keep boxes that overlap no better one of their group by more than `threshold`.

    Args:
        boxes: (P, 4) xyxy float64.
        scores: (P,) float64.
        group: (P,) int64.
        threshold: IoU.
    Returns:
        rows to keep, best score first; of equal scores the lower row.
    """
    if boxes.device.type != "cpu":
        return spread_nms(boxes, scores, group, threshold)
    if torch.jit.is_tracing():  # which would keep the numbers of boxes
        return batched_nms(boxes, scores, group, threshold)
    best_first = scores.sort(descending=True, stable=True).indices
    if threshold >= 1:  # which no overlap is above
        return best_first
    rows = best_first[group[best_first].sort(stable=True).indices]
    counts = torch.unique_consecutive(group[rows], return_counts=True)[1].tolist()
    kept, start = [rows[:0]], 0
    for some_boxes, some_scores in zip(boxes[rows].split(counts), scores[rows].split(counts)):
        kept.append(nms(some_boxes, some_scores, threshold) + start)
        start += len(some_boxes)
    keep = torch.zeros(len(rows), dtype=torch.bool)
    keep[rows[torch.cat(kept)]] = True
    return best_first[keep[best_first]]


def spread_nms(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float) -> Tensor:
    """The same as one suppression, of groups that are moved away from each other: for a GPU, one image at a time.

    Time and memory grow with the square of P, of which an image has a few thousand, whatever the batch has; from 25,000
    on, torchvision's `batched_nms` takes one group after the other, and waits for each. Detectron2 calls it for each
    image, in float32, where the 80th class of an image lies at 100,000 pixels and coordinates are rounded to 1/128.
    Whole distances in float64 round no float32 coordinate over 1e-5: overlaps are to the bit those of each group alone.
    Even where float64 runs at a 64th of float32's rate, 5,000 boxes are about a millisecond.

    Args, Returns: as `grouped_nms`; what lies further than 2**24 pixels away is taken to lie there, NaN at 0.
    """
    boxes = boxes.double().nan_to_num(0.0, _FAR, -_FAR).clamp(-_FAR, _FAR)
    apart = (boxes.amax() - boxes.amin() + 1).ceil() if len(boxes) else 0.0
    return nms(boxes + (group * apart).unsqueeze(1), scores.double(), threshold)
