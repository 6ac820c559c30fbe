"""A detector as one module of tensors: pictures in, maps or detections out, made for being traced.

`RawGraph` ends at the maps of the head, `EndToEnd` at boxes, scores and classes. What follows the head is a second way
to say what `Selector` says, without shapes that depend on what is found: candidates have a fixed number, and what is
none has a score of -1. The certificate holds the two ways together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import FcosError
from ..modeling import Selector
from ..modeling.locations import POINTS
from ..modeling.meta_arch import FCOS
from ..modeling.rewrite import rewrite

__all__ = ["EndToEnd", "RawGraph", "Suppress"]

Suppress = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]
"""(N, P, 4) boxes, (N, P) scores, (N, P) classes, threshold of IoU, K -> (N, P) which are kept."""


class Maps(NamedTuple):
    """Maps of one level: class logits (N, D*K, h, w), ltrb (N, D*4, h, w) pixels, quality logits (N, D, h, w)."""

    logits: Tensor
    ltrb: Tensor
    quality: Tensor | None


class RawGraph(nn.Module):
    """Normalization, backbone and head.

    Args:
        model: a detector; the module has a fused copy of its backbone and head.
    Raises:
        FcosError: the model is no `FCOS`, is batch invariant, suppresses boxes within a level, or is one that
            `optimize` has made.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not isinstance(model, FCOS):
            raise FcosError(
                f"The model is a {type(model).__name__}, and only FCOS itself can be exported: a two-stage detector or "
                "a proposal network has parts of Detectron2 (ROI heads) that this export does not know."
            )
        if model.batch_invariant:
            raise FcosError(
                "The model is batch_invariant, which files cannot be: export it without (in Python, "
                "predictor.model.batch_invariant = False)."
            )
        if model.dense.selector.nms_within != "class":
            raise FcosError(
                f"The model suppresses boxes within a {model.dense.selector.nms_within} (nms_within), which exported "
                "files do not: export it with nms_within=class."
            )
        fused: Any = rewrite(model, fuse=True, precision="fp32", pack=False)
        self.backbone, self.head = fused.backbone, fused.dense.head
        self.names, self.strides = list(model.head_in_features), list(model.strides)
        self.coder = model.dense.coder
        self.register_buffer("mean", model.pixel_mean.detach().clone().view(1, -1, 1, 1))
        self.register_buffer("std", model.pixel_std.detach().clone().view(1, -1, 1, 1))

    @property
    def has_quality(self) -> bool:
        return getattr(self.head, "quality", None) is not None

    @property
    def output_names(self) -> list[str]:
        kinds = ["class_logits", "ltrb", *(["quality_logits"] if self.has_quality else [])]
        return [f"{kind}_{level}" for level in range(len(self.strides)) for kind in kinds]

    def maps(self, images: Tensor, image_sizes: Tensor) -> list[Maps]:
        """Maps of all levels, finest first.

        Args:
            images: (N, 3, H, W) float32 in 0..255, padded; what is in the padding does not matter.
            image_sizes: (N, 2) int64 height and width before padding.
        """
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) < image_sizes[:, :1]
        columns = torch.arange(width, device=images.device) < image_sizes[:, 1:]
        inside = rows[:, :, None].logical_and(columns[:, None, :])[:, None]
        features = self.backbone(((images - self.mean) / self.std) * inside)
        logits, raw, quality = self.head([features[name] for name in self.names])
        found = []
        for class_logits, raw_ltrb, quality_logits, stride in zip(logits, raw, quality, self.strides):
            ltrb = self.coder.detected(raw_ltrb)
            ltrb = ltrb * float(stride) if self.coder.unit == "stride" else ltrb
            found.append(Maps(class_logits.float(), ltrb, quality_logits.float() if self.has_quality else None))
        return found

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        return tuple(x for level in self.maps(images, image_sizes) for x in level if x is not None)


class EndToEnd(nn.Module):
    """`RawGraph`, then what the detector's selector and the thresholds of the classes keep.

    Args:
        model: a detector with a `Selector`.
        least: K scores that detections of the classes must exceed, on top of the selector's threshold.
        suppress: how boxes are suppressed.
    """

    output_names = ("boxes", "scores", "classes", "counts")
    least: Tensor

    def __init__(self, model: Any, least: Sequence[float], suppress: Suppress) -> None:
        super().__init__()
        self.raw = RawGraph(model)
        if type(model.dense.selector) is not Selector:
            raise FcosError(
                f"The detector selects with {type(model.dense.selector).__name__}, which no graph expresses: export "
                "the maps alone, with --graph raw."
            )
        self.selector: Selector = model.dense.selector
        self.grid, self.num_classes, self.suppress = model.dense.grid, model.num_classes, suppress
        self.register_buffer("least", torch.tensor(list(least), dtype=torch.float32))

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (N, M, 4) float32 in pixels of the images, scores (N, M), classes (N, M) int64, counts (N,) int64."""
        levels = self.raw.maps(images, image_sizes)
        size = images.shape[-2:]
        found = [self._candidates(maps, stride, size) for maps, stride in zip(levels, self.raw.strides)]
        boxes, scores, classes = (torch.cat(columns, dim=1) for columns in zip(*found))
        selector = self.selector
        if selector.clip == "before":
            height, width = (image_sizes.float() - selector.clip_margin).unsqueeze(2).unbind(1)
            far = torch.stack((width, height, width, height), dim=2)
            boxes = torch.minimum(boxes.clamp(min=0), far)
            if selector.min_size >= 0 or selector.drop_inverted:
                side = boxes[..., 2:] - boxes[..., :2]
                large = (side > selector.min_size if selector.min_size >= 0 else side + 1 >= 0).all(dim=2)
                scores = torch.where(large, scores, -1.0)
        plus = 1.0 if selector.nms_convention == "plus_one" else 0.0
        measured = torch.cat((boxes[..., :2], boxes[..., 2:] + plus), dim=2)
        if selector.nms_threshold < 1:  # which no overlap is above
            kept = self.suppress(measured, scores, classes, selector.nms_threshold, self.num_classes)
            scores = torch.where(kept, scores, -1.0)
        return self._best(boxes, scores, classes)

    def _candidates(self, maps: Maps, stride: int, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The `topk` best of a level: boxes (N, P, 4), scores (N, P), -1 for none, classes (N, P)."""
        selector, points = self.selector, self.grid.points_per_cell
        class_score = _rows(maps.logits, points).sigmoid()
        product = class_score if maps.quality is None else class_score * _rows(maps.quality, points).sigmoid()
        tested = {"class": class_score, "product": product, "score": self._score(product)}[selector.threshold_on]
        rank = product if selector.topk_by == "score" else class_score
        rank = torch.where(tested > selector.score_threshold, rank, -1.0).flatten(1)
        best, index = pad(rank, (0, selector.topk), value=-1.0).topk(selector.topk, dim=1)  # a small map has fewer
        index = torch.where(best >= 0, index, 0)
        scores = self._score(product.flatten(1).gather(1, index))
        scores = torch.where(best >= 0, scores, -1.0)
        location = index // self.num_classes
        ltrb = _rows(maps.ltrb, points).gather(1, location[:, :, None].expand(-1, -1, 4))
        xy = self._locations(stride, maps.logits.shape[-2:], size)[location]
        boxes = torch.cat((xy - ltrb[..., :2], xy + ltrb[..., 2:]), dim=2)
        return boxes, scores, index % self.num_classes

    def _locations(self, stride: int, map_size: Sequence[int], size: Sequence[int]) -> Tensor:
        """(R, 2) locations of a level, pixels, as `LocationGrid` has them."""
        height, width = map_size
        if self.grid.origin == "center":
            step, origin = (stride, stride), stride // 2
        else:
            step, origin = (size[1] // width, size[0] // height), 0
        x, y = torch.arange(width) * step[0], torch.arange(height) * step[1]
        cells = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=2).view(-1, 1, 2)
        points = torch.tensor(POINTS[self.grid.points_per_cell]) * (stride // 4) + origin
        return (cells + points).view(-1, 2).float()

    def _score(self, product: Tensor) -> Tensor:
        return product.sqrt() if self.selector.score_form == "sqrt" else product

    def _best(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The `max_detections` best, then those of them that exceed the thresholds of their classes."""
        most = self.selector.max_detections
        missing = max(most - self.selector.topk * len(self.raw.strides), 0)
        if missing:
            scores, classes = pad(scores, (0, missing), value=-1.0), pad(classes, (0, missing))
            boxes = pad(boxes, (0, 0, 0, missing))
        scores, index = scores.topk(most, dim=1)
        classes = classes.gather(1, index)
        boxes = boxes.gather(1, index[:, :, None].expand(-1, -1, 4))
        passed = (scores > 0).logical_and(scores > self.least[classes])
        scores, order = torch.where(passed, scores, -1.0).topk(most, dim=1)
        there = scores > 0
        boxes = boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
        boxes = torch.where(there[:, :, None], boxes, 0.0)
        classes = torch.where(there, classes.gather(1, order), 0)
        return boxes, torch.where(there, scores, 0.0), classes, there.sum(dim=1)


def _rows(maps: Tensor, points: int) -> Tensor:
    """(N, D*C, h, w) -> (N, h*w*D, C), in the order of locations."""
    rows = maps.flatten(2).transpose(1, 2)
    return rows if points == 1 else rows.reshape(rows.shape[0], -1, maps.shape[1] // points)
