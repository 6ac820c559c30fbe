"""FCOS as the first stage of a two-stage detector of Detectron2 (in place of an RPN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ProposalNetwork
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..errors import FcosError
from ..options import read_config
from .dense import DenseFCOS
from .inputs import ground_truth
from .meta_arch import as_instances
from .selector import Selector


@PROPOSAL_GENERATOR_REGISTRY.register()
class FCOSProposals(nn.Module):
    """Proposals from the same `DenseFCOS` that `FCOS` uses (arXiv:1904.01355, Sec. 5).

    Boxes end at x + w for every recipe, as those of Detectron2's ROI heads, which share them, do.

    Args:
        dense: head, assigner, losses and selection; its selector serves inference.
        train_selector: used while training.
        in_features: names of the feature maps, finest first.
        strides: their strides, pixels.
        num_classes: K.
        class_agnostic: every object is one of class 0, whatever its class in the data; K is then 1.

    Raises:
        ValueError: `class_agnostic` with another K than 1.
    """

    @configurable
    def __init__(
        self,
        *,
        dense: DenseFCOS,
        train_selector: Selector,
        in_features: Sequence[str],
        strides: Sequence[int],
        num_classes: int,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        if class_agnostic and num_classes != 1:
            raise ValueError(
                f"FCOSProposals has class_agnostic=True and num_classes={num_classes}: set num_classes to 1, for all "
                "objects are of one class to it."
            )
        self.dense = dense
        self.train_selector = train_selector
        self.in_features = list(in_features)
        self.strides = list(strides)
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        return read_config("FCOSProposals", cfg, input_shape)

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Proposals and, with ground truth, losses.

        Args:
            images: N padded images.
            features: {name: (N, C, Hi, Wi)}.
            gt_instances: N `Instances` with gt_boxes and gt_classes; needed while training.
        Returns:
            N `Instances` with proposal_boxes (clipped to the image, none empty) and objectness_logits, best first, in
            inference also scores and pred_classes; and {name: loss}, empty in inference.
        """
        maps = [features[name] for name in self.in_features]
        predictions = self.dense(maps, self.strides, tuple(images.tensor.shape[-2:]))
        losses: dict[str, Tensor] = {}
        if self.training:
            inputs = [{"instances": _of_one_class(x) if self.class_agnostic else x} for x in gt_instances or ()]
            losses = self.dense.losses(predictions, ground_truth(inputs, self.num_classes, maps[0].device))
        selector = self.train_selector if self.training else None
        found = self.dense.detect(predictions, images.image_sizes, selector)
        xy = predictions.locations.xy[found.location]
        return [_as_proposals(x, self.training) for x in as_instances(found, xy, images.image_sizes)], losses


# AdelaiDet's name for it in `MODEL.PROPOSAL_GENERATOR.NAME`; whoever has imported AdelaiDet keeps that.
if "FCOS" not in PROPOSAL_GENERATOR_REGISTRY:
    PROPOSAL_GENERATOR_REGISTRY.register(type("FCOS", (FCOSProposals,), {"__doc__": FCOSProposals.__doc__}))


def first_stage(model: nn.Module) -> ProposalNetwork:
    """Backbone and proposal generator of a two-stage detector as a network that only proposes, e.g. to evaluate it.

    Args:
        model: e.g. Detectron2's `GeneralizedRCNN` or `ProposalNetwork`; the result shares its modules.
    Raises:
        FcosError: it has no proposal generator.
    """
    parts: Any = model
    if getattr(model, "proposal_generator", None) is None:
        raise FcosError(
            f"The model is {type(model).__name__}, which proposes nothing: proposals need a GeneralizedRCNN or a "
            "ProposalNetwork, such as faster_rcnn_fcos_R_50_FPN_1x."
        )
    mean, std = (x.flatten().tolist() for x in (parts.pixel_mean, parts.pixel_std))
    found = ProposalNetwork(
        backbone=parts.backbone, proposal_generator=parts.proposal_generator, pixel_mean=mean, pixel_std=std
    )
    return found.to(parts.pixel_mean.device).train(model.training)


def _of_one_class(given: Instances) -> Instances:
    """The objects of an image without their classes."""
    return Instances(given.image_size, gt_boxes=given.gt_boxes, gt_classes=torch.zeros_like(given.gt_classes))


def _as_proposals(found: Instances, training: bool) -> Instances:
    boxes = Boxes(found.pred_boxes.tensor.detach().clone())
    boxes.clip(found.image_size)
    logits = torch.logit(found.scores, eps=1e-6)
    # While training, ROI heads join the ground truth to them, which has no other fields.
    more = {} if training else {"scores": found.scores, "pred_classes": found.pred_classes}
    proposals = Instances(found.image_size, proposal_boxes=boxes, objectness_logits=logits, **more)
    return proposals[boxes.nonempty()]
