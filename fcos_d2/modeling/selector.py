"""From head outputs to kept boxes: score, threshold, top-k for each level, non-maximum suppression.

Nearly all of the N*R*K class scores are too low, so most of them are never computed. A location whose best class does
not pass holds no candidate; and if more than k locations pass, the k best candidates lie in the k best locations. So
the maps are read once, for the best class of each location, and all classes are scored only at the locations left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from ..options import one_of, option
from ..structures import Detections, Level, Predictions, sent
from .ltrb import LTRBCoder
from .nms import grouped_nms
from .reserved import candidates, kept

# The score of one logit may differ in its last bits, computed alone or as one of a vector: locations are chosen with
# this relative margin, and the exact tests follow.
_SLACK = 1e-5

SELECTOR_REGISTRY = Registry("FCOS_SELECTOR")
SELECTOR_REGISTRY.__doc__ = """Classes whose objects are called like `Selector`."""


@SELECTOR_REGISTRY.register()
@dataclass(frozen=True)
class Selector:
    """Keeps the boxes worth reporting. All published versions are combinations of these fields.

    Attributes:
        score_threshold: scores must be greater.
        threshold_on: compare the "class" score c alone, the final "score", or the "product" c*q whatever the final
            score is (AdelaiDet's THRESH_WITH_CTR).
        score_form: final score from class score c and quality q: "sqrt" of c*q, or their "product".
        topk: most candidates kept for each level of an image before suppression.
        topk_by: rank them by the final "score", or the "class" score alone (mmdetection).
        nms_threshold: suppress a box that overlaps a better one of its class by more than this IoU.
        nms_convention: "plain" IoU, or "plus_one": of boxes whose far corner is one pixel larger (original FCOS).
        max_detections: most boxes of an image.
        max_detections_ties: "cut" keeps exactly that many; "keep" also those that tie with the last (original FCOS).
        clip: "before" suppression to the network input, or "after" it to the original image only.
        clip_margin: pixels that the far side of the clipping window is short of the image: 0, or 1 for the original.
        min_size: with `clip` "before", drop boxes whose width or height is not greater; negative keeps all.
        drop_inverted: with `clip` "before", drop boxes whose width or height + 1 pixel is below 0, which only a coder
            without activation makes (FAD; fcos_core/structures/boxlist_ops.py, remove_small_boxes).
        nms_within: boxes suppress those of their "class", or of their class and "level", as an RPN does (Detectron2).
    """

    score_threshold: float = option(0.05)
    threshold_on: str = option("class")
    score_form: str = option("sqrt", key="SCORE_FORM")
    topk: int = option(1000)
    topk_by: str = option("score", key="TOPK_BY")
    nms_threshold: float = option(0.6, key="NMS_TH")
    nms_convention: str = option("plain", key="NMS_CONVENTION")
    max_detections: int = option(100)
    max_detections_ties: str = option("keep", key="MAX_DETECTIONS_TIES")
    clip: str = option("after", key="CLIP")
    clip_margin: float = option(0.0, key="CLIP_MARGIN")
    min_size: float = option(-1.0, key="MIN_SIZE")
    drop_inverted: bool = option(False, key="DROP_INVERTED")
    nms_within: str = option("class", key="NMS_WITHIN")

    def __post_init__(self) -> None:
        one_of("Selector.threshold_on", self.threshold_on, ("class", "score", "product"))
        one_of("Selector.score_form", self.score_form, ("sqrt", "product"))
        one_of("Selector.topk_by", self.topk_by, ("score", "class"))
        one_of("Selector.nms_within", self.nms_within, ("class", "level"))
        one_of("Selector.nms_convention", self.nms_convention, ("plain", "plus_one"))
        one_of("Selector.max_detections_ties", self.max_detections_ties, ("cut", "keep"))
        one_of("Selector.clip", self.clip, ("before", "after"))
        for name, valid, range_ in (
            ("score_threshold", 0 <= self.score_threshold < 1, "in 0..1, 1 excluded"),
            ("nms_threshold", 0 <= self.nms_threshold <= 1, "in 0..1"),
            ("topk", isinstance(self.topk, int) and self.topk > 0, "a whole number above 0"),
            ("max_detections", isinstance(self.max_detections, int) and self.max_detections > 0,
             "a whole number above 0"),
            ("clip_margin", 0 <= self.clip_margin < math.inf, "a number of pixels, 0 or more"),
            ("min_size", math.isfinite(self.min_size), "a number of pixels, negative to keep all boxes"),
        ):  # fmt: skip
            if not valid:
                raise ValueError(f"Selector.{name} is {getattr(self, name)}, but it must be {range_}.")

    def __call__(self, predictions: Predictions, coder: LTRBCoder, image_sizes: list[tuple[int, int]]) -> Detections:
        """Detections of a batch.

        Args:
            predictions: maps of N images.
            coder: turns raw ltrb into boxes.
            image_sizes: (height, width) of each image before padding, pixels of the network input.
        Returns:
            at most `max_detections` for each image (more on ties if those are kept), best first, images in order.
        """
        # 1. candidates, at most `topk` for each level of each image
        on_host = predictions.logits[0].device.type == "cpu"
        image, location, classes, scores, raw_ltrb = (
            self._candidates(predictions) if on_host else candidates(self, predictions)
        )
        # 2. their boxes
        locations = predictions.locations
        ltrb = coder.detected(raw_ltrb)
        boxes = coder.decode(locations.xy[location], locations.stride[location], ltrb)
        found = Detections(image, boxes, scores, classes, location)
        if self.clip == "before":
            found = self._clip(found, image_sizes)
        # 3. suppression within each group of each image, then the best of each image
        num_images, kinds = predictions.num_images, self._kinds(found, predictions)
        if not on_host:
            return kept(self, found, self._measured(found.boxes), num_images, *kinds)
        found = found[self._suppress(found, *kinds)]
        return self._best(found, num_images)

    def _candidates(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Image, location, class (int64), score (float32) and raw ltrb of the candidates, P rows, level by level."""
        levels, points = predictions.locations.levels, predictions.locations.points_per_cell
        traced = torch.jit.is_tracing()  # then what is done must not depend on how many candidates there are
        # 1. the locations whose best class may pass, (N, R)
        best = torch.cat([_best_class(x, points) for x in predictions.logits], dim=1).float()
        quality = torch.cat([_of_locations(x, points) for x in predictions.quality], dim=1).float().sigmoid()
        least = self._least_logit(quality)
        passes = best >= least
        if not traced and int(passes.sum()) > self.topk:
            least = self._raise(least, best, quality, passes, levels)
            passes &= best >= least
        # 2. the candidates there, level by level, and image by image within a level
        places = [passes[:, level.start : level.end].nonzero().unbind(1) for level in levels]
        image = torch.cat([i for i, _ in places])
        location = torch.cat([offset + level.start for level, (_, offset) in zip(levels, places)])
        logits = torch.cat([_rows(x, points, *pair) for x, pair in zip(predictions.logits, places)])
        at = least[image, location].unsqueeze(1) if isinstance(least, Tensor) else least
        place, classes = (logits >= at).nonzero().unbind(1)
        # 3. the exact test
        class_score = logits[place, classes].float().sigmoid()
        image_at, location_at = image[place], location[place]
        product = class_score * quality[image_at, location_at]
        score = self._score(product)
        chosen: tuple[Tensor, ...] = (
            place, image_at, location_at, classes, score, self._rank(class_score, product)
        )  # fmt: skip
        passed = self._tested(class_score, product) > self.score_threshold
        if traced or not bool(passed.all()):
            chosen = tuple(x[passed] for x in chosen)
        # 4. the best of each level of each image
        if traced or len(chosen[0]) > self.topk:
            level = predictions.locations.level_of(chosen[2])
            rows = self._topk(level * predictions.num_images + chosen[1], chosen[-1])
            chosen = chosen if rows is None else tuple(x[rows] for x in chosen)
        raw_ltrb = torch.cat([_rows(x, points, *pair) for x, pair in zip(predictions.raw_ltrb, places)])
        place, image_at, location_at, classes, score, _ = chosen
        return image_at, location_at, classes, score, raw_ltrb[place]

    def _least_logit(self, quality: Tensor) -> Tensor | float:
        """Class logit that a candidate must have, or a little less: a number, or (N, R) for each location."""
        if self.score_threshold == 0:
            return -math.inf
        if self.threshold_on == "class":
            least = self.score_threshold * (1 - _SLACK)
            return math.log(least / (1 - least))
        squared = self.threshold_on == "score" and self.score_form == "sqrt"
        least = self.score_threshold**2 if squared else self.score_threshold
        return _logit(least * (1 - _SLACK) / quality)

    def _score(self, product: Tensor) -> Tensor:
        return product.sqrt() if self.score_form == "sqrt" else product

    def _tested(self, class_score: Tensor, product: Tensor) -> Tensor:
        """What must be greater than the threshold."""
        if self.threshold_on == "class":
            return class_score
        return product if self.threshold_on == "product" else self._score(product)

    def _rank(self, class_score: Tensor, product: Tensor) -> Tensor:
        """What orders candidates before suppression; the square root would not change the order."""
        return product if self.topk_by == "score" else class_score

    def _raise(
        self, least: Tensor | float, best: Tensor, quality: Tensor, passes: Tensor, levels: Sequence[Level]
    ) -> Tensor:
        """Raise the logit that candidates must have to that of the `topk` best candidates of their level and image.

        A location that passes by the slack alone may hold no candidate, so it is not among these.
        """
        most, class_score = self.topk, best.sigmoid()
        product = class_score * quality
        sure = passes & (self._tested(class_score, product) > self.score_threshold * (1 + _SLACK))
        rank = self._rank(class_score, product) * sure
        raised = least.clone() if isinstance(least, Tensor) else torch.full_like(rank, least)
        for level in levels:
            if level.size > most:
                here = slice(level.start, level.end)
                worst = rank[:, here].topk(most, dim=1, sorted=False).values.amin(dim=1, keepdim=True) * (1 - _SLACK)
                bound = _logit(worst / quality[:, here] if self.topk_by == "score" else worst)
                raised[:, here] = torch.maximum(raised[:, here], bound)
        return raised

    def _topk(self, segment: Tensor, rank: Tensor) -> Tensor | None:
        """Rows of the `topk` best candidates of each segment, whose rows follow each other; `None` for all of them."""
        if torch.jit.is_tracing():  # the same in three times the time, whatever the numbers of candidates
            rows = rank.sort(descending=True, stable=True).indices
            ordered, order = segment[rows].sort(stable=True)
            place = torch.ones_like(ordered).cumsum(0) - 1 - torch.searchsorted(ordered, ordered)  # in its segment
            return rows[order[place < self.topk]]
        counts = torch.unique_consecutive(segment, return_counts=True)[1].tolist()
        if max(counts) <= self.topk:
            return None
        starts = itertools.accumulate(counts, initial=0)
        return torch.cat([s + r.topk(min(self.topk, len(r))).indices for s, r in zip(starts, rank.split(counts))])

    def _clip(self, found: Detections, image_sizes: list[tuple[int, int]]) -> Detections:
        edges = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=found.boxes.dtype)
        size = sent(edges, found.boxes.device) - self.clip_margin
        found.boxes = torch.minimum(found.boxes.clamp(min=0), size[found.image])
        if self.min_size < 0 and not self.drop_inverted:
            return found
        side = found.boxes[:, 2:] - found.boxes[:, :2]
        large = (side > self.min_size if self.min_size >= 0 else side + 1 >= 0).all(dim=1)
        if large.device.type == "cpu":
            return found[large.nonzero().squeeze(1)]
        found.scores = found.scores.masked_fill(~large, -1.0)
        return found

    def _measured(self, boxes: Tensor) -> Tensor:
        """(P, 4) boxes -> those that overlaps are of, float64."""
        boxes = boxes.double()
        if self.nms_convention == "plus_one":
            boxes[:, 2:] += 1
        return boxes

    def _kinds(self, found: Detections, predictions: Predictions) -> tuple[Tensor, int]:
        """(P,) int64 what boxes of an image must have in common to suppress each other, and how many such there are."""
        if self.nms_within == "class":
            return found.classes, predictions.num_classes
        where = predictions.locations
        levels = len(where.levels)
        return found.classes * levels + where.level_of(found.location), predictions.num_classes * levels

    def _suppress(self, found: Detections, kind: Tensor, num_kinds: int) -> Tensor:
        """Rows to keep, best score first."""
        boxes, scores = self._measured(found.boxes), found.scores.double()
        return grouped_nms(boxes, scores, found.image * num_kinds + kind, self.nms_threshold)

    def _best(self, found: Detections, num_images: int) -> Detections:
        """The best of each image, from detections sorted by score."""
        rows = []
        for i in range(num_images):
            mine = (found.image == i).nonzero().squeeze(1)
            if self.max_detections_ties == "keep":
                scores = found.scores[mine]
                last = torch.cat((scores[: self.max_detections], scores.new_full((1,), math.inf))).amin()
                rows.append(mine[scores >= last])
            else:
                rows.append(mine[: self.max_detections])
        return found[torch.cat(rows)]


def _logit(score: Tensor) -> Tensor:
    """Logit of a score, clamped to -69..15: float32 rounds the score of any higher logit to 1."""
    return score.clamp(1e-30, 1 - 3e-7).logit()


def _best_class(values: Tensor, points: int) -> Tensor:
    """(N, D*K, Hi, Wi) -> (N, Hi*Wi*D), the highest of the K values at each location."""
    if points == 1:
        return values.flatten(2).amax(dim=1)
    return values.unflatten(1, (points, -1)).flatten(3).amax(dim=2).transpose(1, 2).flatten(1)


def _of_locations(values: Tensor, points: int) -> Tensor:
    """(N, D, Hi, Wi) -> (N, Hi*Wi*D)."""
    return values.flatten(1) if points == 1 else values.flatten(2).transpose(1, 2).flatten(1)


def _rows(values: Tensor, points: int, image: Tensor, offset: Tensor) -> Tensor:
    """(P, C) of a map (N, D*C, Hi, Wi) at P locations, given as image and offset from the level's first location."""
    if points == 1:
        return values.flatten(2).transpose(1, 2)[image, offset]
    cells = values.unflatten(1, (points, -1)).flatten(3)
    return cells.permute(0, 3, 1, 2)[image, offset // points, offset % points]
