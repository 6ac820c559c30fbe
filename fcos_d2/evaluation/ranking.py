"""What the quality branch is worth: the same predictions ranked without it, by the boxes themselves, by the truth.

That is the ablation of arXiv:1904.01355, Table 5. Nothing is trained anew: the maps of the quality branch are replaced
before selection, so that candidates, suppression and the best of an image follow from the other ranking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..modeling.dense import DenseFCOS
from ..modeling.ltrb import IOU_RULES, ltrb_iou
from ..modeling.quality import centerness_of
from ..structures import GroundTruth, Locations, Predictions

__all__ = ["RANKINGS", "Ranking", "at_locations", "reranked", "target_quality"]

_CERTAIN = 40.0  # a logit whose sigmoid is 1 in float32
_EDGE = 1e-6  # qualities are kept so far from 0 and 1, whose logits are not finite


@dataclass(frozen=True)
class Ranking:
    """A way to rank detections."""

    name: str
    told: str
    quality: Callable[[DenseFCOS, Predictions, GroundTruth], Tensor]  # (N, R) logits


def _none(dense: DenseFCOS, predictions: Predictions, truth: GroundTruth) -> Tensor:
    return torch.full_like(at_locations(predictions.quality, predictions.locations).squeeze(2), _CERTAIN)


def _of_boxes(dense: DenseFCOS, predictions: Predictions, truth: GroundTruth) -> Tensor:
    ltrb = dense.coder.activate(at_locations(predictions.raw_ltrb, predictions.locations))
    return _logit(centerness_of(ltrb.flatten(0, 1)).nan_to_num(0.0).view(ltrb.shape[:2]))


def _oracle(dense: DenseFCOS, predictions: Predictions, truth: GroundTruth) -> Tensor:
    own = at_locations(predictions.quality, predictions.locations).squeeze(2).clone()
    image, location, target = target_quality(dense, predictions, truth)
    own[image, location] = _logit(target)
    return own


RANKINGS = (
    Ranking("none", "class score alone", _none),
    Ranking("from the regression", "times the centerness of the predicted box (Eq. 3)", _of_boxes),
    Ranking("oracle", "times the true quality, at each location that training would assign", _oracle),
)


def target_quality(dense: DenseFCOS, predictions: Predictions, truth: GroundTruth) -> tuple[Tensor, Tensor, Tensor]:
    """What the quality branch should predict: image, location and target, (P,) each, of what training would assign.

    The target is the centerness, or for a branch that was trained to predict it the IoU of the predicted box.
    """
    targets = dense.targets(predictions.locations, truth)
    rows = targets.positives
    image, location, ltrb = rows.image, rows.location, targets.ltrb
    if rows.valid is not None:
        image, location, ltrb = (x[rows.valid > 0] for x in (image, location, ltrb))
    if getattr(dense.loss, "quality", "centerness") == "iou":
        found = dense.coder.activate(predictions.gather(predictions.raw_ltrb, image, location))
        return image, location, ltrb_iou(found, ltrb, IOU_RULES["eps"])[0]
    return image, location, centerness_of(ltrb)


def reranked(ranking: Ranking, dense: DenseFCOS, predictions: Predictions, truth: GroundTruth) -> Predictions:
    """The predictions with the quality that a ranking asks for.

    Args:
        dense: what made them.
        predictions: of N images.
        truth: their objects, in pixels of the network input.
    """
    quality = ranking.quality(dense, predictions, truth)
    points, maps = predictions.locations.points_per_cell, []
    for level in predictions.locations.levels:
        cells = quality[:, level.start : level.end].view(-1, level.height, level.width, points)
        maps.append(cells.permute(0, 3, 1, 2).contiguous())
    return replace(predictions, quality=maps)


def at_locations(maps: list[Tensor], locations: Locations) -> Tensor:
    """L maps (N, D*C, Hi, Wi) -> (N, R, C) float32."""
    points = locations.points_per_cell
    cells = [x.float().unflatten(1, (points, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in maps]
    return torch.cat(cells, dim=1)


def _logit(quality: Tensor) -> Tensor:
    return torch.logit(quality.float(), eps=_EDGE)
