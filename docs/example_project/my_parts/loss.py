"""A loss of one's own: FCOS's, with a distance to the sides of the box beside the overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fcos_d2.modeling import LOSS_REGISTRY, FCOSLoss
from fcos_d2.modeling.losses import Counts
from fcos_d2.options import option
from fcos_d2.structures import Predictions, Targets


@LOSS_REGISTRY.register()
@dataclass(eq=False, repr=False)
class SmoothLoss(FCOSLoss):
    """`FCOSLoss` and a smooth L1 term on the four distances.

    Attributes:
        smooth_weight: of that term; in YAML `MODEL.FCOS.SMOOTH_WEIGHT`.
    """

    smooth_weight: float = option(0.1, key="SMOOTH_WEIGHT")

    def forward(
        self, predictions: Predictions, targets: Targets, pred_ltrb: Tensor, counts: Counts | None = None
    ) -> dict[str, Tensor]:
        if counts is None:  # with them, the losses of the parts of a batch add up to those of the batch
            counts = self.count(targets, predictions.num_images, len(predictions.locations))
        losses = super().forward(predictions, targets, pred_ltrb, counts)
        distance = F.smooth_l1_loss(pred_ltrb, targets.ltrb, reduction="sum") / counts.mean_positives.clamp(min=1)
        return {**losses, "loss_smooth": self.smooth_weight * distance}
