"""The losses of FCOS: class (focal), box (IoU family) and quality, with the published weights and normalizers.

`FCOSLoss` sees predictions and targets, never boxes. Class and quality losses are sums over all locations; what they
are divided by is where published versions differ, see `NORMALIZER_REGISTRY`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ..options import one_of, option
from ..structures import Predictions, Targets
from .focal import focal_loss
from .ltrb import IOU_RULES, IoURule, ltrb_area, ltrb_iou
from .quality import QUALITY_REGISTRY, centerness_of

LOSS_REGISTRY = Registry("FCOS_LOSS")
LOSS_REGISTRY.__doc__ = """Modules called like `FCOSLoss`."""

BOX_LOSS_REGISTRY = Registry("FCOS_BOX_LOSS")
BOX_LOSS_REGISTRY.__doc__ = """Box losses: `f(pred, target, rule) -> (P,)`, from (P, 4) ltrb in the coder's unit."""

NORMALIZER_REGISTRY = Registry("FCOS_NORMALIZER")
NORMALIZER_REGISTRY.__doc__ = """What a sum is divided by: `f(counts) -> scalar tensor`."""


@BOX_LOSS_REGISTRY.register()
def iou(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """-log IoU (UnitBox; the original FCOS)."""
    overlap = ltrb_iou(pred, target, rule)[0]
    return -(overlap.clamp(min=rule.floor) if rule.floor else overlap).log()


@BOX_LOSS_REGISTRY.register()
def linear_iou(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """1 - IoU (FCOS_PLUS)."""
    return 1 - ltrb_iou(pred, target, rule)[0]


@BOX_LOSS_REGISTRY.register()
def giou(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """1 - GIoU (arXiv:1902.09630); the improved FCOS."""
    overlap, union = ltrb_iou(pred, target, rule)
    enclosing = ltrb_area(torch.maximum(pred, target))
    denominator = enclosing + rule.enclosing_eps if rule.enclosing_eps else enclosing
    if rule.floor:
        denominator = denominator.clamp(min=rule.floor)
        union = union.clamp(min=rule.floor)
    return 1 - overlap + (enclosing - union) / denominator


@BOX_LOSS_REGISTRY.register()
def diou(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """1 - IoU + squared distance of the centres over the squared diagonal of the enclosing box (arXiv:1911.08287)."""
    return 1 - ltrb_iou(pred, target, rule)[0] + _center_distance(pred, target)


@BOX_LOSS_REGISTRY.register()
def ciou(pred: Tensor, target: Tensor, rule: IoURule) -> Tensor:
    """DIoU loss plus a term for the aspect ratio (arXiv:1911.08287)."""
    overlap = ltrb_iou(pred, target, rule)[0]
    angle = torch.atan2(target[:, 0] + target[:, 2], target[:, 1] + target[:, 3]) - torch.atan2(
        pred[:, 0] + pred[:, 2], (pred[:, 1] + pred[:, 3]).clamp(min=1e-6)
    )
    ratio = 4 / math.pi**2 * angle**2
    with torch.no_grad():
        weight = ratio / (1 - overlap + ratio).clamp(min=1e-6)
    return 1 - overlap + _center_distance(pred, target) + weight * ratio


def _center_distance(pred: Tensor, target: Tensor) -> Tensor:
    """(P,) squared distance of the centres over the squared diagonal of the enclosing box."""
    shift = ((pred[:, 2:] - pred[:, :2]) - (target[:, 2:] - target[:, :2])) / 2
    high = torch.maximum(pred, target)
    diagonal = (high[:, :2] + high[:, 2:]).square().sum(dim=1)
    return shift.square().sum(dim=1) / diagonal.clamp(min=1e-6)


@dataclass(frozen=True)
class Counts:
    """What normalizers choose from; float32 scalars on the device.

    Attributes:
        positives, weights: number of positives and sum of box weights on this worker.
        mean_positives, mean_weights: the same averaged over all workers.
        images, locations: N and N*R of this worker.
        average: moving average of the positives; `None` unless one of the normalizers asks for it.
    """

    positives: Tensor
    weights: Tensor
    mean_positives: Tensor
    mean_weights: Tensor
    images: int
    locations: int
    average: Tensor | None = None


@NORMALIZER_REGISTRY.register()
def positives(c: Counts) -> Tensor:
    """Positives of this worker, at least 1 (torchvision; FCOS_PLUS's centerness)."""
    return c.positives.clamp(min=1)


@NORMALIZER_REGISTRY.register()
def positives_and_images(c: Counts) -> Tensor:
    """Positives plus images of this worker (FCOS_PLUS)."""
    return c.positives + c.images


@NORMALIZER_REGISTRY.register()
def mean_positives(c: Counts) -> Tensor:
    """Positives averaged over workers, at least 1 (original FCOS, AdelaiDet's "fg", mmdetection)."""
    return c.mean_positives.clamp(min=1)


@NORMALIZER_REGISTRY.register()
def moving_positives(c: Counts) -> Tensor:
    """Moving average of the positives of this worker (Detectron2)."""
    assert c.average is not None, "FCOSLoss counts it for this normalizer"
    return c.average


@NORMALIZER_REGISTRY.register()
def moving_mean_positives(c: Counts) -> Tensor:
    """Moving average of the positives averaged over workers (AdelaiDet's "moving_fg")."""
    assert c.average is not None, "FCOSLoss counts it for this normalizer"
    return c.average


@NORMALIZER_REGISTRY.register()
def locations(c: Counts) -> Tensor:
    """All locations (AdelaiDet's "all")."""
    return torch.full_like(c.positives, float(c.locations))


@NORMALIZER_REGISTRY.register()
def weights(c: Counts) -> Tensor:
    """Sum of the box weights of this worker (FCOS_PLUS)."""
    return c.weights.clamp(min=1e-6)


@NORMALIZER_REGISTRY.register()
def mean_weights(c: Counts) -> Tensor:
    """Sum of the box weights averaged over workers (original FCOS, AdelaiDet, mmdetection)."""
    return c.mean_weights.clamp(min=1e-6)


@LOSS_REGISTRY.register()
@dataclass(eq=False, repr=False)
class FCOSLoss(nn.Module):
    """Class, box and quality losses.

    Attributes:
        focal_alpha, focal_gamma: of the class loss.
        box_loss: name in `BOX_LOSS_REGISTRY`: "iou", "linear_iou", "giou", "diou", "ciou".
        iou_rule: arithmetic of the overlap, a key of `IOU_RULES`.
        box_weight: "centerness" weights each positive by the centerness of its target; "none" does not.
        quality: name in `QUALITY_REGISTRY`: "centerness" or "iou"; "none" for a head without a quality branch.
        class_weight, box_loss_weight, quality_weight: factors of the three losses.
        class_normalizer, box_normalizer, quality_normalizer: names in `NORMALIZER_REGISTRY`.
        moving_start, moving_momentum: of the moving average of positives, where a normalizer uses one. The average is
            part of the state dict, so a resumed training goes on with it.
    """

    focal_alpha: float = option(0.25, key="LOSS_ALPHA")
    focal_gamma: float = option(2.0, key="LOSS_GAMMA")
    box_loss: str = option("giou", key="LOC_LOSS_TYPE")
    iou_rule: str = option("plus_one_exact", key="IOU_RULE")
    box_weight: str = option("centerness")
    quality: str = option("centerness")
    class_weight: float = option(1.0, key="LOSS_WEIGHT_CLS")
    box_loss_weight: float = option(1.0, key="LOSS_WEIGHT_LOC")
    quality_weight: float = option(1.0, key="LOSS_WEIGHT_QUALITY")
    class_normalizer: str = option("mean_positives")
    box_normalizer: str = option("mean_weights")
    quality_normalizer: str = option("mean_positives", key="LOSS_NORMALIZER_QUALITY")
    moving_start: float = option(100.0)
    moving_momentum: float = option(0.9, key="MOVING_MOMENTUM")

    def __post_init__(self) -> None:
        super().__init__()
        one_of("FCOSLoss.box_loss", self.box_loss, [name for name, _ in BOX_LOSS_REGISTRY])
        one_of("FCOSLoss.iou_rule", self.iou_rule, list(IOU_RULES))
        one_of("FCOSLoss.box_weight", self.box_weight, ("centerness", "none"))
        one_of("FCOSLoss.quality", self.quality, [*(name for name, _ in QUALITY_REGISTRY), "none"])
        names = [name for name, _ in NORMALIZER_REGISTRY]
        for loss in ("class", "box", "quality"):
            one_of(f"FCOSLoss.{loss}_normalizer", getattr(self, f"{loss}_normalizer"), names)
        self.register_buffer("average", torch.tensor(float(self.moving_start)) if self._moving else None)

    @property
    def _moving(self) -> set[str]:
        used = {self.class_normalizer, self.box_normalizer, self.quality_normalizer}
        return used & {"moving_positives", "moving_mean_positives"}

    @property
    def quality_loss_name(self) -> str:
        return "loss_fcos_ctr" if self.quality == "centerness" else f"loss_fcos_{self.quality}"

    def forward(
        self, predictions: Predictions, targets: Targets, pred_ltrb: Tensor, counts: Counts | None = None
    ) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            predictions: maps of the batch.
            targets: P positives and what they should predict.
            pred_ltrb: (P, 4) predicted ltrb of the positives in the coder's unit, float32.
            counts: of the batch that this one is a part of; by default its own.
        Returns:
            `loss_fcos_cls`, `loss_fcos_loc`, and with a quality branch `loss_fcos_ctr` or `loss_fcos_iou`: float32
            scalars, finite for P = 0.
        """
        positives, rule = targets.positives, IOU_RULES[self.iou_rule]
        with torch.no_grad():
            weight = self._weights(targets)
            if counts is None:
                counts = self._counts(positives.count, weight, predictions.num_images, len(predictions.locations))
            class_scale, box_scale, quality_scale = self._scales(counts)
        class_loss = focal_loss(predictions, positives, targets.label, self.focal_alpha, self.focal_gamma, class_scale)
        box_loss = BOX_LOSS_REGISTRY.get(self.box_loss)(pred_ltrb, targets.ltrb, rule)
        box_loss = (box_loss if weight is None else box_loss * weight).sum()
        losses = {
            "loss_fcos_cls": class_loss,
            "loss_fcos_loc": box_loss * box_scale,
        }
        if self.quality != "none":
            sum_of_quality = self._quality(predictions, targets, pred_ltrb)
            losses[self.quality_loss_name] = sum_of_quality * quality_scale
        return losses

    def _scales(self, counts: Counts) -> list[Tensor]:
        """Weight over normalizer of the class, box and quality loss; one of several losses is inverted once."""
        names = (self.class_normalizer, self.box_normalizer, self.quality_normalizer)
        inverse = {name: NORMALIZER_REGISTRY.get(name)(counts).reciprocal() for name in dict.fromkeys(names)}
        weights = (self.class_weight, self.box_loss_weight, self.quality_weight)
        return [inverse[name] if weight == 1 else inverse[name] * weight for name, weight in zip(names, weights)]

    def _quality(self, predictions: Predictions, targets: Targets, pred_ltrb: Tensor) -> Tensor:
        """Cross entropy of the quality, summed over the positives."""
        positives = targets.positives
        with torch.no_grad():
            wanted = QUALITY_REGISTRY.get(self.quality)(pred_ltrb, targets.ltrb, IOU_RULES[self.iou_rule])
        found = predictions.gather(predictions.quality, positives.image, positives.location).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
        return (loss if positives.valid is None else loss * positives.valid).sum()

    def _weights(self, targets: Targets) -> Tensor | None:
        """(P,) weight of each positive in the box loss, 0 where a row is invalid; `None` if all are 1."""
        valid = targets.positives.valid
        if self.box_weight == "none":
            return valid
        weight = centerness_of(targets.ltrb)
        return weight if valid is None else weight * valid

    @torch.no_grad()
    def count(self, targets: Targets, num_images: int, num_locations: int) -> Counts:
        """All numbers that normalizers may ask for, with one all-reduce; the moving average takes one step.

        No number depends on predictions, so those of a batch are known before any part of it is computed.

        Args:
            targets: of the batch on this worker.
            num_images: N.
            num_locations: R.
        """
        return self._counts(targets.positives.count, self._weights(targets), num_images, num_locations)

    def _counts(self, positives: Tensor, weight: Tensor | None, num_images: int, num_locations: int) -> Counts:
        weights = positives if self.box_weight == "none" or weight is None else weight.sum()
        mean_positives, mean_weights = positives, weights
        workers = comm.get_world_size()
        if workers > 1:
            mean = torch.stack((positives, weights))
            torch.distributed.all_reduce(mean)
            mean_positives, mean_weights = mean / workers
        average = None
        if self._moving:
            now = mean_positives if "moving_mean_positives" in self._moving else positives
            moving: Any = self.average
            moving.lerp_(now.clamp(min=1).to(moving), 1 - self.moving_momentum)
            average = moving.clone()
        return Counts(positives, weights, mean_positives, mean_weights, num_images, num_images * num_locations, average)
