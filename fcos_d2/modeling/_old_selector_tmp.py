"""From head outputs to kept boxes: score, threshold, top-k for each level, non-maximum suppression.

Scores are compared in logit space first: sigmoid is monotone and quality is at most 1, so nearly all of the N*R*K class
scores are discarded before any exponential is taken. The exact published test follows on what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from fvcore.common.registry import Registry
from torch import Tensor
from torchvision.ops import batched_nms

from ..options import one_of, option
from ..structures import Detections, Predictions
from .ltrb import LTRBCoder

SELECTOR_REGISTRY = Registry("FCOS_SELECTOR")
SELECTOR_REGISTRY.__doc__ = """Classes whose objects are called like `Selector`."""


@dataclass(frozen=True)
class Selector:
    """Keeps the boxes worth reporting. All published versions are combinations of these fields.

    Attributes:
        score_threshold: scores must be greater.
        threshold_on: compare the "class" score c alone, the final "score", or the "product" c*q whatever the final score
            is (AdelaiDet's THRESH_WITH_CTR).
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

    def __post_init__(self) -> None:
        one_of(
            "Selector.threshold_on", self.threshold_on, ("class", "score", "product")
        )
        one_of("Selector.score_form", self.score_form, ("sqrt", "product"))
        one_of("Selector.topk_by", self.topk_by, ("score", "class"))
        one_of("Selector.nms_convention", self.nms_convention, ("plain", "plus_one"))
        one_of(
            "Selector.max_detections_ties", self.max_detections_ties, ("cut", "keep")
        )
        one_of("Selector.clip", self.clip, ("before", "after"))
        if not 0 <= self.score_threshold < 1:
            raise ValueError(
                f"Selector.score_threshold is {self.score_threshold}, but it must be in 0..1, 1 excluded."
            )

    def __call__(
        self,
        predictions: Predictions,
        coder: LTRBCoder,
        image_sizes: list[tuple[int, int]],
    ) -> Detections:
        """Detections of a batch.

        Args:
            predictions: maps of N images.
            coder: turns raw ltrb into boxes.
            image_sizes: (height, width) of each image before padding, pixels of the network input.
        Returns:
            at most `max_detections` for each image (more on ties if those are kept), best first, images in order.
        """
        # 1. candidates of each level, at most `topk` for each image
        chosen = [
            self._candidates(predictions, i) for i in range(len(predictions.logits))
        ]
        image, location, classes, scores = (
            torch.cat(column) for column in zip(*chosen)
        )
        # 2. their boxes
        locations = predictions.locations
        ltrb = coder.activate(predictions.gather(predictions.raw_ltrb, image, location))
        boxes = coder.decode(locations.xy[location], locations.stride[location], ltrb)
        found = Detections(image, boxes, scores, classes, location)
        if self.clip == "before":
            found = self._clip(found, image_sizes)
        # 3. suppression within each class of each image, then the best of each image
        found = found[self._suppress(found, predictions.num_classes)]
        return self._best(found, predictions.num_images)

    def _candidates(
        self, predictions: Predictions, index: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, location, class (int64) and score (float32) of the candidates of one level, each (P,)."""
        level = predictions.locations.levels[index]
        logits, quality = predictions.logits[index], predictions.quality[index]
        image, channel, row, column = (
            (logits > self._logit_threshold(logits.dtype)).nonzero().unbind(1)
        )
        point, classes = (
            channel // predictions.num_classes,
            channel % predictions.num_classes,
        )
        class_score = logits[image, channel, row, column].float().sigmoid()
        product = class_score * quality[image, point, row, column].float().sigmoid()
        score = product.sqrt() if self.score_form == "sqrt" else product
        rank_by = score if self.topk_by == "score" else class_score
        tested = {"class": class_score, "score": score, "product": product}[
            self.threshold_on
        ]
        keep = (tested > self.score_threshold).nonzero().squeeze(1)
        if len(keep) > self.topk:
            per_image = [keep[image[keep] == i] for i in range(predictions.num_images)]
            keep = torch.cat(
                [
                    k[rank_by[k].topk(self.topk).indices] if len(k) > self.topk else k
                    for k in per_image
                ]
            )
        location = (
            level.start + (row * level.width + column) * len(level.points) + point
        )
        return image[keep], location[keep], classes[keep], score[keep]

    def _logit_threshold(self, dtype: torch.dtype) -> float:
        """Class logit that a candidate must exceed for any quality; a little low, the exact test follows.

        Low enough that it stays so when the comparison rounds it to `dtype`.
        """
        least = self.score_threshold
        if self.threshold_on == "score" and self.score_form == "sqrt":
            least = least**2
        if least == 0:
            return -math.inf
        logit = math.log(least / (1 - least))
        return logit - max(1e-3, abs(logit) * torch.finfo(dtype).eps)

    def _clip(
        self, found: Detections, image_sizes: list[tuple[int, int]]
    ) -> Detections:
        size = (
            found.boxes.new_tensor([(w, h, w, h) for h, w in image_sizes])
            - self.clip_margin
        )
        found.boxes = torch.minimum(found.boxes.clamp(min=0), size[found.image])
        if self.min_size < 0:
            return found
        side = found.boxes[:, 2:] - found.boxes[:, :2]
        return found[(side > self.min_size).all(dim=1).nonzero().squeeze(1)]

    def _suppress(self, found: Detections, num_classes: int) -> Tensor:
        """Rows to keep, best score first. Float64: images and classes are told apart by shifts, which cost precision."""
        boxes = found.boxes.double()
        if self.nms_convention == "plus_one":
            boxes = boxes + boxes.new_tensor([0, 0, 1, 1])
        group = found.image * num_classes + found.classes
        return batched_nms(boxes, found.scores.double(), group, self.nms_threshold)

    def _best(self, found: Detections, num_images: int) -> Detections:
        """The best of each image, from detections sorted by score."""
        rows = []
        for i in range(num_images):
            mine = (found.image == i).nonzero().squeeze(1)
            count = self.max_detections
            if self.max_detections_ties == "keep" and 0 < count < len(mine):
                count = int((found.scores[mine] >= found.scores[mine[count - 1]]).sum())
            rows.append(mine[:count])
        return found[torch.cat(rows)]
