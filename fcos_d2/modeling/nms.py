"""Non-maximum suppression within groups (the classes of each image), equal to one suppression for each group.

On the CPU torchvision's `batched_nms` either runs over all boxes at once, in quadratic time, or over one group at a
time, searching all boxes for it. Here boxes are sorted by group once, and as many whole groups as are cheap together go
through one call, set so far apart that no two overlap. Doubles hold the shifted coordinates of float32 boxes exactly,
but for those within a fraction of a pixel of zero, which move by less than a millionth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

# Boxes in one call: so few that the quadratic time is no more than the fixed cost of a call.
_PACK = 128
# Shifting is exact enough below this many pixels times groups; above, each group gets its own call.
_MAX_SHIFT = 2.0**40


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
        return batched_nms(boxes, scores, group, threshold)
    best_first = scores.sort(descending=True, stable=True).indices
    rows = best_first[group[best_first].sort(stable=True).indices]
    boxes, scores = boxes[rows], scores[rows]
    index, counts = torch.unique_consecutive(group[rows], return_inverse=True, return_counts=True)[1:]
    packs = _packs(counts.tolist(), _PACK)
    if len(packs) < len(counts):
        span = _span(boxes, len(counts))
        if span is None:
            packs = counts.tolist()
        else:
            boxes = boxes + (index * span).unsqueeze(1)
    kept, start = [rows[:0]], 0
    for pack_boxes, pack_scores in zip(boxes.split(packs), scores.split(packs)):
        kept.append(nms(pack_boxes, pack_scores, threshold) + start)
        start += len(pack_boxes)
    keep = torch.zeros(len(rows), dtype=torch.bool)
    keep[rows[torch.cat(kept)]] = True
    return best_first[keep[best_first]]


def _packs(counts: list[int], most: int) -> list[int]:
    """Join neighbouring counts as long as their sum is at most `most`."""
    packs: list[int] = []
    for count in counts:
        if packs and packs[-1] + count <= most:
            packs[-1] += count
        else:
            packs.append(count)
    return packs


def _span(boxes: Tensor, groups: int) -> float | None:
    """How far apart groups must be set: a power of two, so that shifts are exact; `None` if that is too far."""
    low, high = boxes.aminmax()
    extent = float(high - low) + 1
    if not extent * groups < _MAX_SHIFT:  # also where a box is not finite
        return None
    return 2.0 ** math.ceil(math.log2(extent))
