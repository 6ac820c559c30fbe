"""Non-maximum suppression within groups (the classes of each image), equal to one suppression for each group.

On the CPU torchvision's `batched_nms` either runs over all boxes at once, in quadratic time, or over one group at a
time, searching all boxes for it. Here boxes are sorted by group once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms


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
    counts = torch.unique_consecutive(group[rows], return_counts=True)[1].tolist()
    kept, start = [rows[:0]], 0
    for some_boxes, some_scores in zip(boxes[rows].split(counts), scores[rows].split(counts)):
        kept.append(nms(some_boxes, some_scores, threshold) + start)
        start += len(some_boxes)
    keep = torch.zeros(len(rows), dtype=torch.bool)
    keep[rows[torch.cat(kept)]] = True
    return best_first[keep[best_first]]
