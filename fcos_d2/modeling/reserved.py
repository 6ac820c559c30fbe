"""Selection in shapes that are known beforehand, for a GPU: the host waits for it wherever it must know a number.

Every level of every image has room for its best candidates; room that none takes has the score -1. The rules are those
of `Selector`, whose own way looks at as few numbers as it can, as suits a CPU. The host waits once for each image, when
suppression says how many boxes are kept, and where more than are wanted tie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Detections, Level, Predictions
from .nms import spread_nms

if TYPE_CHECKING:
    from .selector import Selector

__all__ = ["by_location", "candidates", "kept"]


def candidates(selector: Selector, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image, location, class (int64), score (float32, -1 for none) and raw ltrb of N*C rows, C for each image."""
    maps = zip(predictions.locations.levels, predictions.logits, predictions.raw_ltrb, predictions.quality)
    columns = zip(*(_of_level(selector, *of_level) for of_level in maps))
    location, classes, score, raw_ltrb = (torch.cat(column, dim=1) for column in columns)
    image = torch.arange(len(score), device=score.device).unsqueeze(1).expand_as(score)
    return image.flatten(), location.flatten(), classes.flatten(), score.flatten(), raw_ltrb.flatten(0, 1)


def _of_level(
    selector: Selector, level: Level, logits: Tensor, raw_ltrb: Tensor, quality: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Location, class and score (N, C), raw ltrb (N, C, 4) of the best candidates of a level."""
    logits, raw_ltrb, quality = (by_location(x, len(level.points)) for x in (logits, raw_ltrb, quality))
    q = quality.squeeze(2).float().sigmoid()  # (N, Ri)
    # 1. the best locations: each of the best candidates lies in one of them
    rank = _rank(selector, logits.amax(dim=2).float().sigmoid(), q)
    place = rank.topk(min(selector.topk, level.size), dim=1).indices  # (N, k)
    # 2. the best candidates there, of all classes
    image = torch.arange(len(place), device=place.device).unsqueeze(1)
    class_score, q = logits[image, place].float().sigmoid(), q.gather(1, place).unsqueeze(2)  # (N, k, K)
    rank, which = _rank(selector, class_score, q).flatten(1).topk(min(selector.topk, class_score[0].numel()), dim=1)
    score = selector._score(class_score * q).flatten(1).gather(1, which)
    place = place.gather(1, which // class_score.shape[2])
    return place + level.start, which % class_score.shape[2], score.masked_fill(rank < 0, -1.0), raw_ltrb[image, place]


def _rank(selector: Selector, class_score: Tensor, quality: Tensor) -> Tensor:
    """What orders candidates; -1 for those that do not pass."""
    product = class_score * quality
    passes = selector._tested(class_score, product) > selector.score_threshold
    return torch.where(passes, selector._rank(class_score, product), -1.0)


def by_location(values: Tensor, points: int) -> Tensor:
    """(N, D*C, Hi, Wi) -> (N, Hi*Wi*D, C)."""
    return values.unflatten(1, (points, -1)).flatten(3).permute(0, 3, 1, 2).flatten(1, 2)


def kept(
    selector: Selector, found: Detections, boxes: Tensor, num_images: int, kind: Tensor, num_kinds: int
) -> Detections:
    """The best of each image after suppression, best first.

    Args:
        found: N*C rows, those of `candidates`.
        boxes: (N*C, 4) xyxy, of which overlaps are taken.
        num_images: N.
        kind, num_kinds: boxes of an image suppress those of their kind, (N*C,) int64 in 0..num_kinds-1.
    """
    # What is none lies on one square, in a kind of its own, and so does one row more: of these suppression keeps one,
    # the last in the order of scores, and the host knows how many are real.
    none = (found.scores < 0).unsqueeze(1)
    square = F.pad(boxes.new_zeros(1, 2), (0, 2), value=1.0)
    places = F.pad(torch.where(none, square, boxes).view(num_images, -1, 4), (0, 0, 0, 1))
    places[:, -1:] = square
    scores = F.pad(found.scores.view(num_images, -1), (0, 1), value=-1.0)
    group = F.pad(kind.masked_fill(none.squeeze(1), num_kinds).view(num_images, -1), (0, 1), value=num_kinds)
    rows: list[Tensor] = []
    for image in range(num_images):
        if selector.nms_threshold < 1:
            best = spread_nms(places[image], scores[image], group[image], selector.nms_threshold)[:-1]
        else:  # which nothing overlaps by more
            best = scores[image].argsort(descending=True, stable=True)[: int((scores[image] >= 0).sum())]
        most = selector.max_detections
        if selector.max_detections_ties == "keep" and len(best) > most:
            ordered = scores[image, best]
            most = int((ordered >= ordered[most - 1]).sum())
        rows.append(best[:most] + image * (scores.shape[1] - 1))
    chosen = found[torch.cat(rows)]
    chosen.counts = [len(x) for x in rows]
    return chosen
