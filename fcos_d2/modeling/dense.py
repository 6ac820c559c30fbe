"""DenseFCOS joins the parts: locations, head, assigner, coder, loss and selector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..structures import Detections, GroundTruth, Locations, Positives, Predictions, Targets
from .assigner import Assigner
from .locations import LocationGrid
from .ltrb import LTRBCoder
from .selector import Selector
from .whole_batch import WholeBatch


class DenseFCOS(nn.Module):
    """All of FCOS between feature maps and losses or detections.

    `FCOS` wraps it as a one-stage detector, `FCOSProposals` as the first stage of a two-stage one.

    Args:
        head: called with L feature maps; returns logits, raw ltrb and quality (see `FCOSHead`).
        loss: called with predictions, targets and predicted ltrb (see `FCOSLoss`).
        assigner: called with locations, boxes, image and N (see `PointAssigner`).
        coder: raw ltrb <-> boxes.
        selector: called with predictions, coder and image sizes (see `Selector`).
        grid: makes the locations.
    """

    def __init__(
        self,
        *,
        head: nn.Module,
        loss: Any,
        assigner: Assigner,
        coder: LTRBCoder,
        selector: Selector,
        grid: LocationGrid,
    ) -> None:
        super().__init__()
        self.head, self.loss = head, loss
        self.assigner, self.coder, self.selector, self.grid = assigner, coder, selector, grid
        points = getattr(head, "points_per_cell", grid.points_per_cell)
        if points != grid.points_per_cell:
            raise ValueError(
                f"The head predicts {points} points for each cell, but the location grid has {grid.points_per_cell}: "
                "set both to the same number."
            )
        branch, learns = (getattr(part, name, "") for part, name in ((head, "quality_on"), (loss, "quality")))
        if branch and learns and (branch == "none") != (learns == "none"):
            raise ValueError(
                f"The head has quality_on={branch!r}, but the loss has quality={learns!r}: without a quality branch "
                "both are 'none'."
            )

    def forward(self, features: Sequence[Tensor], strides: Sequence[int], image_size: tuple[int, int]) -> Predictions:
        """Predictions for every location.

        Args:
            features: L maps (N, C, Hi, Wi), finest first.
            strides: nominal stride of each, pixels.
            image_size: (height, width) of the padded network input, pixels.
        """
        logits, raw_ltrb, quality = self.head(features)
        sizes = [tuple(x.shape[-2:]) for x in logits]
        return Predictions(logits, raw_ltrb, quality, self.grid(sizes, strides, image_size, logits[0].device))

    def losses(
        self, predictions: Predictions, ground_truth: GroundTruth, whole: WholeBatch | None = None
    ) -> dict[str, Tensor]:
        """Named losses of a batch, float32 scalars; see `FCOSLoss`.

        Args:
            predictions: maps of the batch.
            ground_truth: its boxes.
            whole: the batch that this one is a part of; the loss must have a method `count`, as `FCOSLoss` has.
        """
        # Half precision would overflow in exp and lose digits in sums: from here on all is float32, under autocast too.
        with torch.autocast(predictions.logits[0].device.type, enabled=False):
            targets = self.targets(predictions.locations, ground_truth)
            positives = targets.positives
            raw_ltrb = predictions.gather(predictions.raw_ltrb, positives.image, positives.location)
            if positives.valid is not None:
                # Invalid rows read location 0, whose prediction may be empty or overflow exp, and 0 * inf is not 0.
                raw_ltrb = torch.where(positives.valid[:, None] > 0, raw_ltrb, torch.ones_like(raw_ltrb))
            pred_ltrb = self.coder.activate(raw_ltrb)
            if whole is None:
                return self.loss(predictions, targets, pred_ltrb)
            if whole.counts is None:
                of_whole = self.targets(predictions.locations, whole.ground_truth)
                whole.counts = self.loss.count(of_whole, whole.ground_truth.num_images, len(predictions.locations))
            return self.loss(predictions, targets, pred_ltrb, whole.counts)

    @torch.no_grad()
    def targets(self, locations: Locations, ground_truth: GroundTruth) -> Targets:
        """Which locations answer for a box, and what they should predict."""
        boxes = ground_truth.boxes
        gt_index = self.assigner(locations, boxes, ground_truth.image, ground_truth.num_images)
        positives = self._positives(gt_index, self._bound(locations, ground_truth))
        xy, stride = (locations.xy[positives.location], locations.stride[positives.location])
        ltrb = self.coder.encode(xy, stride, boxes[positives.box])
        if positives.valid is not None:
            ltrb = torch.where(positives.valid[:, None] > 0, ltrb, torch.ones_like(ltrb))
        return Targets(positives, ground_truth.classes[positives.box], ltrb)

    def _bound(self, locations: Locations, ground_truth: GroundTruth) -> int | None:
        """Rows to reserve for positives; `None` in eager mode on the CPU, where counting them waits for no device."""
        if ground_truth.boxes.device.type == "cpu" and not torch.compiler.is_compiling():
            return None
        return self.assigner.max_positives(locations, len(ground_truth.boxes), ground_truth.num_images)

    @staticmethod
    def _positives(gt_index: Tensor, bound: int | None) -> Positives:
        """(N, R) gt index -> positives; with a bound, padded to it and without waiting for the device."""
        if bound is None:
            image, location = (gt_index >= 0).nonzero().unbind(1)
            return Positives(image, location, gt_index[image, location])
        image, location = torch.nonzero_static(gt_index >= 0, size=bound, fill_value=-1).unbind(1)
        valid = (image >= 0).float()
        image, location = image.clamp(min=0), location.clamp(min=0)
        return Positives(image, location, gt_index[image, location].clamp(min=0), valid)

    @torch.no_grad()
    def detect(
        self, predictions: Predictions, image_sizes: list[tuple[int, int]], selector: Selector | None = None
    ) -> Detections:
        """Detections of a batch in pixels of the network input, best first.

        Args:
            predictions: maps of N images.
            image_sizes: (height, width) of each image before padding.
            selector: used instead of the detector's own, e.g. for proposals while training.
        """
        with torch.autocast(predictions.logits[0].device.type, enabled=False):
            return (selector or self.selector)(predictions, self.coder, image_sizes)
