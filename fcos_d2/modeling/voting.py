"""Detections of several views of one image -> one list: suppression, or box voting (arXiv:1505.01749 Sec. 5).

Voting is that of sfzhang15/ATSS, atss_core/engine/bbox_aug_vote.py. There the best box left takes all boxes of its
class that overlap it enough, one class and one box after the other. The boxes that take others are those that a
suppression keeps, and each of the others goes to the first of them that it overlaps: so one suppression and one matrix
of overlaps say the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..structures import Detections
from .nms import grouped_nms
from .selector import Selector

__all__ = ["MERGES", "Clusters", "clusters", "merge_views"]

_PAIRS = 1 << 20  # overlaps that are computed at once


class Clusters(NamedTuple):
    """Boxes of one object each.

    Attributes:
        leader: (L,) int64 rows of the best box of each cluster, best score first.
        member: (P,) int64 cluster of each row, 0..L-1.
        overlap: (P,) float64 IoU of each row with the best box of its cluster, 1 for that itself.
    """

    leader: Tensor
    member: Tensor
    overlap: Tensor


def clusters(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float) -> Clusters:
    """Let the best box that is left take those of its group that overlap it by `threshold` or more, until none is left.

    Args:
        boxes: (P, 4) xyxy float64, on the CPU.
        scores: (P,) float64.
        group: (P,) int64.
        threshold: IoU above 0.
    """
    leader = grouped_nms(boxes, scores, group, math.nextafter(threshold, 0.0))  # which suppresses what is above
    member = torch.zeros(len(boxes), dtype=torch.int64)
    overlap = torch.ones(len(boxes), dtype=torch.float64)
    if len(leader) == 0:
        return Clusters(leader, member, overlap)
    for rows in torch.arange(len(boxes)).split(max(_PAIRS // len(leader), 1)):
        iou = box_iou(boxes[rows], boxes[leader]).masked_fill_(group[rows, None] != group[leader], 0.0).nan_to_num_(0.0)
        joins = iou >= threshold
        first = torch.where(joins.any(dim=1), joins.int().argmax(dim=1), iou.argmax(dim=1))  # rounding may leave none
        member[rows] = first
        overlap[rows] = iou.gather(1, first[:, None]).squeeze(1)
    member[leader] = torch.arange(len(leader))  # a box without area overlaps nothing, not even itself
    overlap[leader] = 1.0
    return Clusters(leader, member, overlap)


def merge_views(
    found: Detections, selector: Selector, merge: str, vote_threshold: float, soft_threshold: float
) -> Detections:
    """What is left of the detections of all views of one image, best first, at most as many as the selector reports.

    Args:
        found: of one image, on the CPU, boxes in pixels of one view; of equal scores the earlier row comes first.
        selector: of the detector: its threshold of suppression, how it measures overlaps, how many it reports.
        merge: "nms", "vote" or "soft-vote", see `zoo.tta.TTA`.
        vote_threshold, soft_threshold: of voting.
    """
    return selector._best(MERGES[merge](found, selector, vote_threshold, soft_threshold), 1)


def _nms(found: Detections, selector: Selector, vote_threshold: float, soft_threshold: float) -> Detections:
    return found[selector._suppress(found, found.classes, 1)]  # groups are classes, as there is one image


def _vote(found: Detections, selector: Selector, vote_threshold: float, soft_threshold: float) -> Detections:
    return _voted(found, selector, vote_threshold)[0]


def _soft_vote(found: Detections, selector: Selector, vote_threshold: float, soft_threshold: float) -> Detections:
    """Members stay, too, with their score times 1 - IoU, where that is at least `soft_threshold`."""
    voted, by_object = _voted(found, selector, vote_threshold)
    lowered = found.scores * (1 - by_object.overlap).to(found.scores.dtype)
    others = (lowered >= soft_threshold).nonzero().squeeze(1)
    rest = found[others]
    rest.scores = lowered[others]
    columns = (torch.cat((getattr(voted, name), getattr(rest, name))) for name in _COLUMNS)
    image, boxes, scores, classes, location = columns
    both = Detections(image, boxes, scores, classes, location)
    return both[scores.sort(descending=True, stable=True).indices]


def _voted(found: Detections, selector: Selector, threshold: float) -> tuple[Detections, Clusters]:
    """The best detection of each object with the mean box of its cluster, best first."""
    by_object = clusters(selector._measured(found.boxes), found.scores.double(), found.classes, threshold)
    voted = found[by_object.leader]
    voted.boxes = _mean_boxes(found, by_object)
    return voted, by_object


_COLUMNS = ("image", "boxes", "scores", "classes", "location")


def _mean_boxes(found: Detections, by_object: Clusters) -> Tensor:
    """(L, 4) mean of the boxes of each cluster, weighted with their scores; of one box that box to the bit."""
    leader, member, _ = by_object
    weight = found.scores.double().unsqueeze(1)
    total = weight.new_zeros(len(leader), 1).index_add_(0, member, weight)
    sums = weight.new_zeros(len(leader), 4).index_add_(0, member, found.boxes.double() * weight)
    alone = torch.bincount(member, minlength=len(leader)).unsqueeze(1) == 1
    return torch.where(alone, found.boxes[leader], (sums / total).to(found.boxes.dtype))


MERGES: dict[str, Callable[[Detections, Selector, float, float], Detections]] = {
    "nms": _nms, "vote": _vote, "soft-vote": _soft_vote,
}  # fmt: skip
