"""What becomes of every candidate of a selection: kept, or lost at which step, and to which box.

The steps are those of `Selector`, called one after the other on the same predictions, so what is kept here is to the
bit what the selector keeps on the CPU. It looks at all N*R*K scores, which the selector does not: for explaining, not
for detecting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..structures import Detections, Predictions
from .ltrb import LTRBCoder
from .reserved import by_location
from .selector import Selector

__all__ = ["FATES", "KEPT", "LIMIT", "SMALL", "SUPPRESSED", "TOPK", "Fates", "fates_of"]

FATES = ("kept", "cut by top-k", "dropped as too small", "suppressed", "cut by the limit")
KEPT, TOPK, SMALL, SUPPRESSED, LIMIT = range(len(FATES))

_ROWS = 256  # suppressed boxes whose overlaps are computed at a time


@dataclass(frozen=True)
class Fates:
    """All P candidates of a batch: every location and class whose score passes the selector's threshold.

    Attributes:
        candidates: image, box (pixels of the network input), final score, class and location of each, by image, then
            by location.
        class_score, quality: (P,) float32 in 0..1, which the final score is made of.
        level: (P,) int64 level of the location, 0 the finest.
        rank, of: (P,) int64 place among the candidates of its level and image by what `topk_by` says, from 1; and how
            many candidates these are.
        fate: (P,) int64 place in `FATES`.
        by: (P,) int64 row of the candidate that suppressed it; -1 where none did.
        kept: (D,) int64 rows that are kept, in the order of the selector: image by image, best first.
    """

    candidates: Detections
    class_score: Tensor
    quality: Tensor
    level: Tensor
    rank: Tensor
    of: Tensor
    fate: Tensor
    by: Tensor
    kept: Tensor

    def __len__(self) -> int:
        return len(self.fate)


@torch.inference_mode()
def fates_of(
    selector: Selector, predictions: Predictions, coder: LTRBCoder, image_sizes: Sequence[tuple[int, int]]
) -> Fates:
    """Follow every candidate of a batch through the selection.

    Args:
        selector: whose selection is followed.
        predictions: maps of N images, on the CPU.
        coder: turns raw ltrb into boxes.
        image_sizes: (height, width) of each image before padding, pixels of the network input.
    """
    where, sizes = predictions.locations, list(image_sizes)
    num_images, num_classes = predictions.num_images, predictions.num_classes

    def key(some: Detections) -> Tensor:
        return (some.image * len(where) + some.location) * num_classes + some.classes

    # 1. the steps of the selector
    image, location, classes, scores, raw_ltrb = selector._candidates(predictions)
    chosen = Detections(image, _boxes(predictions, coder, location, raw_ltrb), scores, classes, location)
    large = selector._clip(chosen, sizes) if selector.clip == "before" else chosen  # clips those of `chosen`, too
    apart = large[selector._suppress(large, *selector._kinds(large, predictions))]
    best = selector._best(apart, num_images)
    # 2. all candidates, with what the steps say of those that they saw
    found, class_score, quality = _passing(selector, predictions, chosen)
    found.boxes = _boxes(predictions, coder, found.location, predictions.gather(
        predictions.raw_ltrb, found.image, found.location))  # fmt: skip
    keys = key(found)  # ascending
    fate = torch.full_like(found.image, TOPK)
    for some, code in ((chosen, SMALL), (large, SUPPRESSED), (apart, LIMIT), (best, KEPT)):
        rows = torch.searchsorted(keys, key(some))
        fate[rows], found.boxes[rows], found.scores[rows] = code, some.boxes, some.scores
    level = where.level_of(found.location)
    rank, of = _placed(found.image * len(where.levels) + level, selector._rank(class_score, class_score * quality))
    by = torch.full_like(found.image, -1)
    lost, survivors = (fate == SUPPRESSED).nonzero().squeeze(1), torch.searchsorted(keys, key(apart))
    kind, num_kinds = selector._kinds(found, predictions)
    group = found.image * num_kinds + kind
    by[lost] = _suppressors(selector._measured(found.boxes), group, lost, survivors, selector.nms_threshold)
    return Fates(found, class_score, quality, level, rank, of, fate, by, torch.searchsorted(keys, key(best)))


def _placed(segment: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Place of each of P rows in its segment, the highest value first, from 1; and the length of that segment."""
    order = value.sort(descending=True, stable=True).indices
    order = order[segment[order].sort(stable=True).indices]
    ordered = segment[order]
    first = torch.searchsorted(ordered, ordered)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - first + 1
    end = torch.searchsorted(ordered, segment, right=True)
    return place, end - torch.searchsorted(ordered, segment)


def _boxes(predictions: Predictions, coder: LTRBCoder, location: Tensor, raw_ltrb: Tensor) -> Tensor:
    """(P, 4) xyxy of raw ltrb at locations."""
    where = predictions.locations
    return coder.decode(where.xy[location], where.stride[location], coder.detected(raw_ltrb))


def _passing(selector: Selector, predictions: Predictions, chosen: Detections) -> tuple[Detections, Tensor, Tensor]:
    """Candidates by image, location and class, without boxes, class scores and qualities; `chosen` is among them."""
    where = predictions.locations
    points = where.points_per_cell
    class_score, quality = (  # (N, R, K), (N, R, 1)
        torch.cat([by_location(x, points) for x in maps], dim=1).float().sigmoid()
        for maps in (predictions.logits, predictions.quality)
    )
    passes = selector._tested(class_score, class_score * quality) > selector.score_threshold
    passes[chosen.image, chosen.location, chosen.classes] = True  # whose scores may differ in the last bits
    image, location, classes = passes.nonzero().unbind(1)
    class_score, quality = class_score[image, location, classes], quality[image, location, 0]
    scores = selector._score(class_score * quality)
    return Detections(image, scores.new_zeros(len(scores), 4), scores, classes, location), class_score, quality


def _suppressors(boxes: Tensor, group: Tensor, lost: Tensor, survivors: Tensor, threshold: float) -> Tensor:
    """The row that suppressed each of some rows: of its group, the best survivor that overlaps it enough.

    Args:
        boxes: (P, 4) xyxy float64, of which overlaps are taken.
        group: (P,) int64.
        lost: (S,) rows that were suppressed.
        survivors: (V,) rows that were not, best first.
        threshold: IoU.
    Returns:
        (S,) int64 rows.
    """
    found = [lost[:0]]
    for rows in lost.split(_ROWS) if len(lost) else ():
        overlap = box_iou(boxes[rows], boxes[survivors])
        overlap = overlap.masked_fill(group[rows].unsqueeze(1) != group[survivors], -1.0)
        enough = overlap > threshold
        # Where rounding hides the overlap that counted, it is the largest one.
        place = torch.where(enough.any(dim=1), enough.int().argmax(dim=1), overlap.argmax(dim=1))
        found.append(survivors[place])
    return torch.cat(found)
